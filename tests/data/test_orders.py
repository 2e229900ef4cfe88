from __future__ import annotations

import itertools

import pytest
import torch

from ssl_bench.data.orders import Window, permutation
from ssl_bench.errors import UserError


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


def stream(window: Window, size: int, *, seed: int, count: int) -> list[int]:
    return window.positions(size, seed, count, 0).tolist()


def test_window_and_stride_are_the_papers_share_of_its_images() -> None:
    """2¹⁷ and 2¹⁴ of ImageNet's 1,281,167 images (Cao et al. 2020)."""
    assert Window(share=2**17 / 1_281_167, strides=8).sizes(1_281_167) == (2**17, 2**14)
    assert Window(0.1, 8).sizes(50_000) == (5000, 625)
    assert Window(0.1, 8).sizes(1295) == (128, 16)
    assert Window(0.01, 8).sizes(80) == (8, 1)  # an image further at least
    assert Window(1.0, 8).sizes(1295) == (1295, 162)  # no longer than the circle


def test_one_round_looks_at_every_image_as_often_as_the_window_has_strides() -> None:
    size, window = 240, Window(0.1, 8)
    length, stride = window.sizes(size)
    assert (length, stride) == (24, 3)
    passes = size // stride
    counts = torch.tensor(stream(window, size, seed=3, count=passes * length)).bincount(minlength=size)
    assert counts.tolist() == [8] * size


def test_a_pass_is_a_stretch_of_the_circle_and_the_next_one_shares_all_but_a_stride_of_it() -> None:
    size, window = 100, Window(0.2, 5)
    length, stride = window.sizes(size)
    every = stream(window, size, seed=0, count=60 * length)
    passes = [set(every[start : start + length]) for start in range(0, len(every), length)]
    assert all(len(images) == length for images in passes)
    assert all(len(one & other) == length - stride for one, other in itertools.pairwise(passes))
    around = size // stride
    assert all(passes[k] == passes[k + around] for k in range(60 - around))
    assert every[:length] != every[around * length : (around + 1) * length]  # in another order
    assert every[:length] != sorted(every[:length])


def test_a_pass_goes_around_the_end_of_the_circle() -> None:
    size, window = 10, Window(0.7, 1)
    assert window.sizes(size) == (7, 7)
    every = stream(window, size, seed=0, count=70)
    assert torch.tensor(every).bincount().tolist() == [7] * size


@pytest.mark.parametrize("length", [1, 7, 24, 100, 239])
def test_epochs_of_any_length_are_cuts_of_one_stream(length: int) -> None:
    window = Window(0.1, 8)
    every = stream(window, 240, seed=1, count=11 * length)
    for epoch in (10, 0, 3):  # any of them, in any order
        assert window.positions(240, 1, length, epoch).tolist() == every[epoch * length : (epoch + 1) * length]


def test_the_circle_and_the_passes_belong_to_the_seed() -> None:
    window = Window(0.1, 8)
    before = stream(window, 240, seed=1, count=48)
    torch.manual_seed(5)
    assert stream(window, 240, seed=1, count=48) == before
    assert set(stream(window, 240, seed=2, count=24)) != set(before[:24])


def test_a_window_longer_than_the_circle_is_refused() -> None:
    with pytest.raises(UserError, match=r"order\.strides=8 .* there are 7: choose at most 7"):
        Window(1.0, 8).sizes(7)
