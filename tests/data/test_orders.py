from __future__ import annotations

import pytest
import torch

from ssl_bench.data.orders import permutation, sequential


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_permutation_holds_every_position_once(size: int) -> None:
    assert permutation(size, seed=3, epoch=5).tolist() != list(range(size)) or size < 2
    assert sorted(permutation(size, seed=3, epoch=5).tolist()) == list(range(size))


def test_permutation_is_a_function_of_seed_and_epoch_alone() -> None:
    before = permutation(1000, seed=3, epoch=5)
    torch.manual_seed(123)
    torch.rand(7)
    assert torch.equal(permutation(1000, seed=3, epoch=5), before)


def test_permutations_of_neighbouring_seeds_and_epochs_are_unrelated() -> None:
    """Ranks of 10,000 positions in independent orders correlate within ±.05: five standard errors."""
    size = 10_000
    orders = [permutation(size, seed, epoch) for seed in range(4) for epoch in range(4)]
    correlations = torch.stack(orders).double().corrcoef() - torch.eye(len(orders), dtype=torch.float64)
    assert correlations.abs().max() < 0.05


def test_sequential_is_in_turn() -> None:
    assert sequential(4).tolist() == [0, 1, 2, 3]
