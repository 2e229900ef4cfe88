"""Every loss against a loop written from the paper's equation, in float64."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from contrast import contrastive, cosine, info_nce_by_rows
from ssl_bench.losses import (
    barlow_twins,
    info_nce,
    margin_triplet,
    normalized_mse,
    nt_logistic,
    nt_xent,
    over_pairs,
    queue_nce,
    vicreg,
)

N, D = 5, 7


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_nt_xent_equals_the_double_loop() -> None:
    z1, z2 = draws(N, D), draws(N, D, seed=1)
    loss = nt_xent((z1, z2), (z1, z2), first=0, temperature=0.3, normalize=True)
    assert loss.item() == pytest.approx(contrastive([z1, z2], [z1, z2], 0.3).item(), rel=1e-6)


def test_nt_xent_against_a_teacher_equals_the_double_loop() -> None:
    v, u = [draws(N, D), draws(N, D, seed=1)], [draws(N, D, seed=2), draws(N, D, seed=3)]
    loss = nt_xent((v[0], v[1]), (u[0], u[1]), first=0, temperature=0.1, normalize=True)
    assert loss.item() == pytest.approx(contrastive(v, u, 0.1).item(), rel=1e-6)


def test_nt_xent_of_rank_slices_averages_to_the_global_loss() -> None:
    z1, z2 = draws(6, D), draws(6, D, seed=1)
    whole = nt_xent((z1, z2), (z1, z2), first=0, temperature=0.2, normalize=True)
    slices = [
        nt_xent((z1[f : f + 2], z2[f : f + 2]), (z1, z2), first=f, temperature=0.2, normalize=True) for f in (0, 2, 4)
    ]
    torch.testing.assert_close(torch.stack(slices).mean(), whole)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_nt_xent_of_equal_embeddings_is_the_log_of_the_candidate_count(size: int) -> None:
    z = torch.ones(size, D, dtype=torch.float64)
    loss = nt_xent((z, z), (z, z), first=0, temperature=0.5, normalize=True)
    assert loss.item() == pytest.approx(math.log(2 * size - 1), abs=1e-6)


def test_nt_xent_ignores_joint_permutation_swapped_views_and_positive_row_scale() -> None:
    z1, z2 = draws(N, D), draws(N, D, seed=1)
    loss = nt_xent((z1, z2), (z1, z2), first=0, temperature=0.2, normalize=True)
    order = torch.tensor([3, 1, 4, 0, 2])
    scale = draws(N, 1, seed=4).abs() + 0.1
    for a, b in ((z1[order], z2[order]), (z2, z1), (scale * z1, z2 / scale)):
        torch.testing.assert_close(nt_xent((a, b), (a, b), first=0, temperature=0.2, normalize=True), loss)


def test_nt_xent_gradient_is_orthogonal_to_each_row() -> None:
    z1, z2 = draws(N, D).requires_grad_(), draws(N, D, seed=1).requires_grad_()
    nt_xent((z1, z2), (z1, z2), first=0, temperature=0.2, normalize=True).backward()
    for z in (z1, z2):
        assert z.grad is not None
        assert z.grad.abs().max() > 1e-3
        torch.testing.assert_close((z.grad * z).sum(1), torch.zeros(N, dtype=torch.float64), atol=1e-6, rtol=0)


def test_nt_xent_survives_low_temperatures_in_float32() -> None:
    z = draws(N, D).float()
    assert torch.isfinite(nt_xent((z, z), (-z, -z), first=0, temperature=0.005, normalize=True))


def test_info_nce_equals_the_double_loop() -> None:
    query, key = draws(3, D), draws(N, D, seed=1)
    loss = info_nce(query, key, first=2, temperature=0.2)
    assert loss.item() == pytest.approx(info_nce_by_rows(query, key, 0.2, first=2), rel=1e-6)


def test_info_nce_of_equal_embeddings_is_ln_n() -> None:
    z = torch.ones(N, D, dtype=torch.float64)
    assert info_nce(z, z, first=0, temperature=0.1).item() == pytest.approx(math.log(N), abs=1e-6)


def test_normalized_mse_is_the_squared_distance_of_unit_vectors() -> None:
    p, z = draws(N, D), draws(N, D, seed=1)
    distances = [float((p[i] / p[i].norm() - z[i] / z[i].norm()).pow(2).sum()) for i in range(N)]
    assert normalized_mse(p, z).item() == pytest.approx(sum(distances) / N, rel=1e-6)


def test_normalized_mse_spans_zero_to_four_and_ignores_positive_row_scale() -> None:
    p = draws(N, D)
    scale = draws(N, 1, seed=1).abs() + 0.1
    assert normalized_mse(p, scale * p).item() == pytest.approx(0, abs=1e-6)
    assert normalized_mse(p, -scale * p).item() == pytest.approx(4, abs=1e-6)
    z = draws(N, D, seed=2)
    torch.testing.assert_close(normalized_mse(scale * p, z / scale), normalized_mse(p, z))


def test_nt_xent_of_smaller_views_looks_for_each_full_size_view_among_other_images() -> None:
    anchors, candidates = [draws(N, D, seed=s) for s in range(4)], [draws(N, D, seed=s) for s in (7, 8)]
    total, terms = 0.0, 0
    for target in (0, 1):
        for view in (v for v in range(4) if v != target):
            for image in range(N):
                anchor = anchors[view][image]
                positive = math.exp(cosine(anchor, candidates[target][image]) / 0.3)
                others = sum(
                    math.exp(cosine(anchor, candidates[v][i]) / 0.3) for v in (0, 1) for i in range(N) if i != image
                )
                total -= math.log(positive / (positive + others))
                terms += 1
    loss = nt_xent(anchors, candidates, first=0, temperature=0.3, normalize=True)
    assert loss.item() == pytest.approx(total / terms, rel=1e-6)


def test_over_pairs_compares_each_full_size_view_with_all_others() -> None:
    seen: list[tuple[int, int]] = []

    def loss(v: Tensor, i: Tensor) -> Tensor:
        seen.append((int(v), int(i)))
        return v + 10 * i

    mean = over_pairs(loss, [torch.tensor(float(v)) for v in range(4)], [torch.tensor(0.0), torch.tensor(1.0)])
    assert sorted(seen) == [(0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert mean.item() == pytest.approx(sum(v + 10 * i for v, i in seen) / 6)


def by_triplets(
    term: Callable[[float, float | None], float],
    anchors: list[Tensor],
    candidates: list[Tensor],
    *,
    normalize: bool,
    semi_hard: bool,
) -> float:
    """Mean over all pairs of different views of an image; None where no negative is less similar than the positive."""
    total, pairs = 0.0, 0
    for target in range(len(candidates)):
        for view in (v for v in range(len(anchors)) if v != target):
            for image in range(N):
                similar = [
                    [
                        cosine(anchors[view][image], z[i]) if normalize else float(anchors[view][image] @ z[i])
                        for i in range(N)
                    ]
                    for z in candidates
                ]
                positive = similar[target][image]
                negatives = [row[i] for row in similar for i in range(N) if i != image]
                below = [s for s in negatives if s < positive]
                chosen: list[float | None] = [max(below, default=None)] if semi_hard else [*negatives]
                total += sum(term(positive, s) for s in chosen) / len(chosen)
                pairs += 1
    return total / pairs


def logistic_term(positive: float, negative: float | None) -> float:
    repelled = 0.0 if negative is None else math.log(1 / (1 + math.exp(negative / 0.3)))
    return -math.log(1 / (1 + math.exp(-positive / 0.3))) - repelled


def margin_term(positive: float, negative: float | None) -> float:
    return 0.0 if negative is None else max(negative - positive + 0.4, 0.0)


@pytest.mark.parametrize("views", [2, 4])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("semi_hard", [True, False])
def test_logistic_and_margin_losses_equal_loops_over_triplets(views: int, normalize: bool, semi_hard: bool) -> None:
    anchors = [draws(N, D, seed=seed) for seed in range(views)]
    candidates = [anchors[0] + draws(N, D, seed=7), anchors[1] - draws(N, D, seed=8)]  # the second of them is far
    chosen = {"normalize": normalize, "semi_hard": semi_hard}
    found = nt_logistic(anchors, candidates, first=0, temperature=0.3, **chosen)
    assert found.item() == pytest.approx(by_triplets(logistic_term, anchors, candidates, **chosen), rel=1e-6)
    found = margin_triplet(anchors, candidates, first=0, margin=0.4, **chosen)
    assert found.item() == pytest.approx(by_triplets(margin_term, anchors, candidates, **chosen), rel=1e-6)


def test_a_semi_hard_negative_is_less_similar_than_the_positive_and_may_be_missing() -> None:
    negatives = [draws(N, D, seed=seed) for seed in (1, 2)]
    far = [-negatives[1], -negatives[0]]  # from the anchors' own positives, so that for some no negative is further
    loops = by_triplets(margin_term, far, negatives, normalize=True, semi_hard=True)
    assert margin_triplet(far, negatives, first=0, margin=0.4, normalize=True, semi_hard=True).item() == pytest.approx(
        loops
    )
    equal = F.one_hot(torch.zeros(N, dtype=torch.int64), D).double().requires_grad_()  # whose cosines are 1 exactly
    loss = nt_logistic([equal, equal], [equal, equal], first=0, temperature=1.0, normalize=True, semi_hard=True)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))
    (gradient,) = torch.autograd.grad(loss, equal)
    assert gradient.isfinite().all()


def test_nt_xent_without_normalisation_is_of_inner_products() -> None:
    z1, z2 = 0.3 * draws(N, D), 0.3 * draws(N, D, seed=1)
    rows = torch.cat([z1, z2])
    logits = (rows @ rows.T / 0.7).fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(logits, torch.arange(2 * N).roll(N))
    torch.testing.assert_close(nt_xent((z1, z2), (z1, z2), first=0, temperature=0.7, normalize=False), expected)


def test_queue_nce_equals_the_explicit_matrix() -> None:
    query, key, queue = draws(N, D), draws(N, D, seed=1), F.normalize(draws(9, D, seed=2), dim=1)
    logits = torch.tensor(
        [[cosine(q, k), *(cosine(q, row) for row in queue)] for q, k in zip(query, key, strict=True)],
        dtype=torch.float64,
    )
    expected = -(logits / 0.2).log_softmax(1)[:, 0].mean()
    torch.testing.assert_close(queue_nce(query, key, queue, temperature=0.2), expected)


def test_a_key_that_is_already_in_the_queue_keeps_the_loss_above_ln_2() -> None:
    key = draws(1, D)
    queue = F.normalize(key, dim=1)
    assert queue_nce(key, key, queue, temperature=0.01).item() == pytest.approx(math.log(2), rel=1e-6)


def whitened(rows: int = 64, width: int = 6) -> Tensor:
    z = draws(rows, width)
    q = torch.linalg.qr(z - z.mean(0)).Q
    return (q - q.mean(0)) * rows**0.5


def test_barlow_twins_is_zero_for_equal_whitened_views_and_four_for_a_flipped_column() -> None:
    z = whitened()
    assert barlow_twins(z, z, off_diagonal=0.5).item() == pytest.approx(0, abs=1e-8)
    flipped = z.clone()
    flipped[:, 2] *= -1
    assert barlow_twins(z, flipped, off_diagonal=0.5).item() == pytest.approx(4, abs=1e-3)


def test_barlow_twins_ignores_shift_and_positive_scale_of_columns_and_the_order_of_views() -> None:
    z1, z2 = 100 * draws(40, D), 100 * draws(40, D, seed=1)
    loss = barlow_twins(z1, z2, off_diagonal=0.1)
    scale, shift = draws(1, D, seed=2).abs() + 0.5, draws(1, D, seed=3)
    torch.testing.assert_close(barlow_twins(z1 * scale + shift, z2, off_diagonal=0.1), loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(barlow_twins(z2, z1, off_diagonal=0.1), loss)


def test_barlow_twins_of_constant_embeddings_is_the_width() -> None:
    ones = torch.ones(8, D, dtype=torch.float64)
    assert barlow_twins(ones, ones, off_diagonal=0.1).item() == pytest.approx(D)


def test_barlow_twins_of_independent_views_meets_its_expectation() -> None:
    rows, width = 256, 64
    on, off = [], []
    for seed in range(20):
        z1, z2 = draws(rows, width, seed=seed), draws(rows, width, seed=1000 + seed)
        on.append(barlow_twins(z1, z2, off_diagonal=0.0).item())
        off.append(barlow_twins(z1, z2, off_diagonal=1.0).item() - on[-1])
    assert sum(on) / 20 == pytest.approx(width * (1 + 1 / rows), rel=0.01)
    assert sum(off) / 20 == pytest.approx(width * (width - 1) / rows, rel=0.03)


def vicreg_terms(z1: Tensor, z2: Tensor) -> tuple[float, float, float]:
    return tuple(  # type: ignore[return-value]
        vicreg(z1, z2, invariance=i, variance=v, covariance=c).item() for i, v, c in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    )


def test_vicreg_terms_equal_double_loops() -> None:
    z1, z2 = 0.3 * draws(9, D), 0.3 * draws(9, D, seed=1)
    invariance, variance, covariance = vicreg_terms(z1, z2)
    assert invariance == pytest.approx(sum(float(a - b) ** 2 for a, b in zip(z1.flatten(), z2.flatten())) / (9 * D))  # noqa: B905
    spread = correlated = 0.0
    for z in (z1, z2):
        for i in range(D):
            mean_i = sum(float(x) for x in z[:, i]) / 9
            var = sum((float(x) - mean_i) ** 2 for x in z[:, i]) / 8
            spread += max(0.0, 1 - math.sqrt(var + 1e-4)) / D / 2
            for j in range(D):
                mean_j = sum(float(x) for x in z[:, j]) / 9
                c = sum((float(a) - mean_i) * (float(b) - mean_j) for a, b in zip(z[:, i], z[:, j], strict=True)) / 8
                correlated += c**2 / D if i != j else 0.0
    assert variance == pytest.approx(spread)
    assert covariance == pytest.approx(correlated)


def test_vicreg_of_equal_views_constant_columns_and_whitened_ones() -> None:
    z = draws(9, D)
    assert vicreg_terms(z, z)[0] == 0
    constant = torch.ones(9, D, dtype=torch.float64)
    assert vicreg_terms(constant, constant) == pytest.approx((0, 0.99, 0))
    white = 1.5 * whitened()
    assert vicreg_terms(white, white) == pytest.approx((0, 0, 0), abs=1e-10)


def test_vicreg_ignores_a_common_shift_and_scales_as_its_powers() -> None:
    z1, z2 = 0.1 * draws(9, D), 0.1 * draws(9, D, seed=1)
    before, shifted = vicreg_terms(z1, z2), vicreg_terms(z1 + 3, z2 + 3)
    assert shifted == pytest.approx(before)
    doubled = vicreg_terms(2 * z1, 2 * z2)
    assert doubled[0] == pytest.approx(4 * before[0])
    assert doubled[2] == pytest.approx(16 * before[2])


def test_vicreg_has_a_finite_gradient_where_columns_are_constant() -> None:
    z = torch.ones(5, D, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(vicreg(z, z, invariance=25, variance=25, covariance=1), z)
    assert gradient.isfinite().all()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nt_xent": lambda a, b: nt_xent([a, b], [a, b], first=0, temperature=0.5, normalize=True),
    "nt_xent against a teacher": lambda a, b: nt_xent([a, b], [b, a], first=0, temperature=0.5, normalize=True),
    "nt_xent, not normalised": lambda a, b: nt_xent([a, b], [a, b], first=0, temperature=0.5, normalize=False),
    "nt_logistic": lambda a, b: nt_logistic([a, b], [a, b], first=0, temperature=0.5, normalize=True, semi_hard=False),
    "nt_logistic, semi-hard": lambda a, b: nt_logistic(
        [a, b], [a, b], first=0, temperature=0.5, normalize=True, semi_hard=True
    ),
    "margin_triplet": lambda a, b: margin_triplet([a, b], [a, b], first=0, margin=0.8, normalize=True, semi_hard=False),
    "margin_triplet, semi-hard": lambda a, b: margin_triplet(
        [a, b], [a, b], first=0, margin=0.8, normalize=True, semi_hard=True
    ),
    "info_nce": lambda a, b: info_nce(a, b, first=0, temperature=0.5),
    "queue_nce": lambda a, b: queue_nce(a, b, F.normalize(draws(6, D, seed=5), dim=1), temperature=0.5),
    "normalized_mse": normalized_mse,
    "barlow_twins": lambda a, b: barlow_twins(a, b, off_diagonal=0.1),
    "vicreg": lambda a, b: vicreg(a, b, invariance=25, variance=25, covariance=1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name: str) -> None:
    z1, z2 = draws(N, D).requires_grad_(), draws(N, D, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], (z1, z2))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_compute_in_float32_under_half_precision(name: str, half: torch.dtype) -> None:
    z1, z2 = (0.25 * draws(N, D, seed=seed).to(half) for seed in (0, 1))
    expected = LOSSES[name](z1.float(), z2.float())
    with torch.autocast("cpu", dtype=half):
        loss = LOSSES[name](z1, z2)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("loss", [barlow_twins, vicreg])
def test_losses_take_their_tensors_by_name(loss: Any) -> None:
    z1, z2 = torch.randn(2, N, D, generator=torch.Generator().manual_seed(0))
    names = list(inspect.signature(loss).parameters)
    weights = dict.fromkeys(names[2:], 0.5)
    assert loss(**{names[0]: z1, names[1]: z2}, **weights) == loss(z1, z2, **weights)
