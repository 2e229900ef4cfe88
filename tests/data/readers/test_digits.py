from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits

from ssl_bench.data.readers import digits


def test_train_and_test_hold_every_digit_once() -> None:
    splits = digits.read(Path("unused"))
    source = load_digits()
    written = sorted(zip((source.data * 255 / 16).round().astype(int).tolist(), source.target.tolist(), strict=True))
    found = sorted(
        (image, label)
        for split in splits.values()
        for image, label in zip(split.images.flatten(1).tolist(), split.labels.tolist(), strict=True)
    )
    assert found == written


def test_gray_levels_fill_the_range_of_a_byte() -> None:
    levels = digits.read(Path("unused"))["train"].images.unique().tolist()
    assert levels == [round(level * 255 / 16) for level in range(17)]
    assert (levels[0], levels[-1]) == (0, 255)


def test_test_split_is_a_fifth_of_every_digit_and_always_the_same() -> None:
    splits = digits.read(Path("unused"))
    sizes = torch.bincount(torch.cat([split.labels for split in splits.values()]))
    assert torch.bincount(splits["test"].labels).tolist() == [round(0.2 * size) for size in sizes.tolist()]
    torch.manual_seed(5)
    again = digits.read(Path("elsewhere"))
    assert {name: split.digest() for name, split in again.items()} == {
        name: split.digest() for name, split in splits.items()
    }
