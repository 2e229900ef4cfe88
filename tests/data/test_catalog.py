from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssl_bench.data import catalog
from ssl_bench.data.images import Images
from ssl_bench.data.readers.fashion_mnist import DEBIAN
from ssl_bench.errors import UserError

# Without a copy of its own a machine would have to download them.
NAMES = [
    name if name == "digits" else pytest.param(name, marks=pytest.mark.skipif(not DEBIAN.exists(), reason="no copy"))
    for name in catalog.DATASETS
]


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_tells_the_truth_about_its_data(name: str, tmp_path: Path) -> None:
    dataset = catalog.find(name)
    splits = catalog.load(name, tmp_path)
    assert dataset.name == name
    assert {split: len(images) for split, images in splits.items()} == {"train": dataset.train, "test": dataset.test}
    for split in splits.values():
        assert split.images.shape[1:] == (dataset.channels, dataset.height, dataset.width)
        assert split.images.dtype == torch.uint8
        assert split.labels.unique().tolist() == list(range(dataset.classes))
    levels = torch.arange(256, dtype=torch.float64) / 255
    for channel, (mean, std) in enumerate(zip(dataset.mean, dataset.std, strict=True)):
        shares = splits["train"].images[:, channel].flatten().bincount(minlength=256).double()
        shares /= shares.sum()
        assert mean == pytest.approx(float(shares @ levels), abs=5e-5)
        assert std == pytest.approx(float(shares @ (levels - shares @ levels).square()) ** 0.5, abs=5e-5)


def test_digits_are_those_of_every_other_machine(tmp_path: Path) -> None:
    splits = catalog.load("digits", tmp_path)
    assert {split: images.digest()[:16] for split, images in splits.items()} == {
        "train": "a525e8efe3ee2dfe",
        "test": "43d9a03a9ffbcd6d",
    }


@pytest.mark.skipif(not DEBIAN.exists(), reason="no copy")
def test_fashion_mnist_is_that_of_every_other_machine(tmp_path: Path) -> None:
    splits = catalog.load("fashion_mnist", tmp_path)
    assert {split: images.digest()[:16] for split, images in splits.items()} == {
        "train": "a83bca8848d79508",
        "test": "32d9b437b4b0fe2d",
    }


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^There is no dataset 'digit': choose one of digits, fashion_mnist\.$"):
        catalog.load("digit", tmp_path)


def test_half_a_dataset_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    digits = catalog.find("digits")

    def half(data_dir: Path) -> dict[str, Images]:
        splits = digits.read(data_dir)
        return {**splits, "test": Images(splits["test"].images[:100], splits["test"].labels[:100])}

    monkeypatch.setitem(catalog.DATASETS, "digits", replace(digits, read=half))
    with pytest.raises(
        UserError, match=rf"test split of digits .* data_dir={tmp_path}{os.sep}?.* 359 × 1 × 8 × 8.* 100 ×"
    ):
        catalog.load("digits", tmp_path)
