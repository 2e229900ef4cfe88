from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_bench.evaluation.collapse import alignment, collapse_warnings, embedding_std, rankme, uniformity


def gaussian(n: int = 500, d: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def judge(z: Tensor) -> list[str]:
    panel = {"embedding_std": embedding_std(z), "rankme": rankme(z), "uniformity": uniformity(z)}
    return collapse_warnings(panel, dimension=z.shape[1], rows=len(z))


def test_std_is_isotropic_for_gaussians_and_zero_for_one_direction() -> None:
    assert embedding_std(gaussian(4000)) == pytest.approx(1 / math.sqrt(64), rel=0.01)
    assert embedding_std(torch.arange(1.0, 6)[:, None] * torch.ones(64)) == pytest.approx(0, abs=1e-7)


def test_std_is_that_of_numpy() -> None:
    z = gaussian().numpy()
    assert embedding_std(torch.from_numpy(z)) == pytest.approx((z / np.linalg.norm(z, axis=1)[:, None]).std(0).mean())


@pytest.mark.parametrize("rank", [1, 3, 20])
def test_rankme_counts_equal_directions(rank: int) -> None:
    basis = torch.linalg.qr(gaussian(64, 64)).Q[:rank]
    assert rankme(basis.repeat(10, 1)) == pytest.approx(rank, rel=0.01)


def test_rankme_is_the_entropy_of_singular_values() -> None:
    z = gaussian() * torch.logspace(0, -3, 64)
    values = np.linalg.svd(z.double().numpy(), compute_uv=False)
    share = values / values.sum()
    assert rankme(z) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)


def test_alignment_is_0_for_the_same_2_for_unrelated_4_for_opposite_views() -> None:
    z = gaussian(4000)
    assert alignment(z, 3 * z) == pytest.approx(0, abs=1e-6)
    assert alignment(z, gaussian(4000, seed=1)) == pytest.approx(2, abs=0.02)
    assert alignment(z, -z) == pytest.approx(4, rel=1e-6)


def test_uniformity_is_the_mean_over_pairs() -> None:
    z = gaussian(20).double().numpy()
    z /= np.linalg.norm(z, axis=1)[:, None]
    potentials = [np.exp(-3 * ((z[i] - z[j]) ** 2).sum()) for i in range(20) for j in range(i)]
    assert uniformity(torch.from_numpy(z), t=3) == pytest.approx(np.log(np.mean(potentials)), rel=1e-5)
    assert uniformity(torch.ones(20, 8)) == pytest.approx(0, abs=1e-6)


def test_measures_read_low_precision_and_take_no_gradient() -> None:
    z = gaussian().bfloat16().requires_grad_()
    for measure in (embedding_std, rankme, uniformity):
        assert measure(z) == measure(z.detach().float())


def test_zero_rows_count_as_collapse() -> None:
    z = torch.zeros(50, 64)
    assert embedding_std(z) == 0
    assert rankme(z) == pytest.approx(1, abs=0.01)
    assert uniformity(z) == 0
    assert alignment(z, z) == 0
    assert len(judge(z)) == 3


def test_healthy_embeddings_raise_no_warning() -> None:
    assert judge(gaussian()) == []
    assert judge(gaussian(500, 2)) == []
    assert judge(torch.relu(gaussian())) == []


def test_one_point_is_called_collapsed_in_words() -> None:
    warnings = judge(torch.ones(500, 64) + 0.01 * gaussian())
    assert len(warnings) == 3
    assert all(warning.startswith("Collapsed") and warning.endswith(".") for warning in warnings)


def test_two_dimensions_of_many_are_called_dimensional_collapse_only() -> None:
    warnings = judge(torch.cat([gaussian(500, 2), torch.zeros(500, 62)], dim=1) @ torch.linalg.qr(gaussian(64, 64)).Q)
    assert warnings == ["Collapsed to few dimensions: the embeddings have effective rank 2.0 of 64."]


def test_diverged_embeddings_are_named() -> None:
    z = gaussian()
    z[0] = torch.nan
    (warning,) = judge(z)
    assert warning.startswith("Diverged: embedding_std, rankme, uniformity")


def test_what_the_panel_lacks_is_not_judged() -> None:
    assert collapse_warnings({}, dimension=64, rows=100) == []
    assert collapse_warnings({"loss": 1.0}, dimension=1, rows=1) == []
