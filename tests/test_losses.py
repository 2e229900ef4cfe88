"""Every loss against a loop written from the paper's equation, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssl_bench.losses import info_nce, normalized_mse, nt_xent

N, D = 5, 7


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.pow(2).sum().sqrt() * b.pow(2).sum().sqrt()))


def nt_xent_by_loops(anchors: list[Tensor], candidates: list[Tensor], temperature: float) -> float:
    """Equation 1 of SimCLR, written out."""
    total = 0.0
    for view in (0, 1):
        for image in range(len(anchors[0])):
            anchor = anchors[view][image]
            positive = math.exp(cosine(anchor, candidates[1 - view][image]) / temperature)
            everything = sum(
                math.exp(cosine(anchor, candidates[v][i]) / temperature)
                for v in (0, 1)
                for i in range(len(candidates[0]))
                if (v, i) != (view, image)
            )
            total -= math.log(positive / everything)
    return total / (2 * len(anchors[0]))


def test_nt_xent_equals_the_double_loop() -> None:
    z1, z2 = draws(N, D), draws(N, D, seed=1)
    loss = nt_xent((z1, z2), (z1, z2), first=0, temperature=0.3)
    assert loss.item() == pytest.approx(nt_xent_by_loops([z1, z2], [z1, z2], 0.3), rel=1e-6)


def test_nt_xent_against_a_teacher_equals_the_double_loop() -> None:
    v, u = [draws(N, D), draws(N, D, seed=1)], [draws(N, D, seed=2), draws(N, D, seed=3)]
    loss = nt_xent((v[0], v[1]), (u[0], u[1]), first=0, temperature=0.1)
    assert loss.item() == pytest.approx(nt_xent_by_loops(v, u, 0.1), rel=1e-6)


def test_nt_xent_of_rank_slices_averages_to_the_global_loss() -> None:
    z1, z2 = draws(6, D), draws(6, D, seed=1)
    whole = nt_xent((z1, z2), (z1, z2), first=0, temperature=0.2)
    slices = [nt_xent((z1[f : f + 2], z2[f : f + 2]), (z1, z2), first=f, temperature=0.2) for f in (0, 2, 4)]
    torch.testing.assert_close(torch.stack(slices).mean(), whole)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_nt_xent_of_equal_embeddings_is_the_log_of_the_candidate_count(size: int) -> None:
    z = torch.ones(size, D, dtype=torch.float64)
    loss = nt_xent((z, z), (z, z), first=0, temperature=0.5)
    assert loss.item() == pytest.approx(math.log(2 * size - 1), abs=1e-6)


def test_nt_xent_ignores_joint_permutation_swapped_views_and_positive_row_scale() -> None:
    z1, z2 = draws(N, D), draws(N, D, seed=1)
    loss = nt_xent((z1, z2), (z1, z2), first=0, temperature=0.2)
    order = torch.tensor([3, 1, 4, 0, 2])
    scale = draws(N, 1, seed=4).abs() + 0.1
    for a, b in ((z1[order], z2[order]), (z2, z1), (scale * z1, z2 / scale)):
        torch.testing.assert_close(nt_xent((a, b), (a, b), first=0, temperature=0.2), loss)


def test_nt_xent_gradient_is_orthogonal_to_each_row() -> None:
    z1, z2 = draws(N, D).requires_grad_(), draws(N, D, seed=1).requires_grad_()
    nt_xent((z1, z2), (z1, z2), first=0, temperature=0.2).backward()
    for z in (z1, z2):
        assert z.grad is not None
        assert z.grad.abs().max() > 1e-3
        torch.testing.assert_close((z.grad * z).sum(1), torch.zeros(N, dtype=torch.float64), atol=1e-6, rtol=0)


def test_nt_xent_survives_low_temperatures_in_float32() -> None:
    z = draws(N, D).float()
    assert torch.isfinite(nt_xent((z, z), (-z, -z), first=0, temperature=0.005))


def test_info_nce_equals_the_double_loop() -> None:
    query, key = draws(3, D), draws(N, D, seed=1)
    expected = 0.0
    for i in range(3):
        logits = [cosine(query[i], key[j]) / 0.2 for j in range(N)]
        expected += math.log(sum(map(math.exp, logits))) - logits[i + 2]
    loss = info_nce(query, key, first=2, temperature=0.2)
    assert loss.item() == pytest.approx(expected / 3, rel=1e-6)


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


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_float32(half: torch.dtype) -> None:
    z1, z2 = draws(N, D).to(half), draws(N, D, seed=1).to(half)
    assert nt_xent((z1, z2), (z1, z2), first=0, temperature=0.1).dtype == torch.float32
    assert info_nce(z1, z2, first=0, temperature=0.1).dtype == torch.float32
    assert normalized_mse(z1, z2).dtype == torch.float32
