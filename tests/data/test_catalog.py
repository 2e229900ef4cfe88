from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssl_bench.data import catalog
from ssl_bench.data.images import Images
from ssl_bench.data.readers import downloads
from ssl_bench.data.readers.fashion_mnist import DEBIAN
from ssl_bench.errors import UserError

DATA = Path(os.environ.get("SSL_BENCH_DATA", Path(__file__).parents[2] / "data"))  # where this machine may keep copies


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(url: str) -> None:
        raise OSError("offline")

    monkeypatch.setattr(downloads, "_require_answer", no_answer)


@pytest.mark.parametrize("name", [name for name, dataset in catalog.DATASETS.items() if dataset.height])
def test_an_entry_states_the_truth_about_its_data(name: str) -> None:
    dataset = catalog.find(name)
    assert dataset.name == name
    try:
        splits = catalog.load(name, DATA)
    except UserError as error:
        if "is not there" not in str(error):
            raise
        pytest.skip("no copy")
    assert {split: len(images) for split, images in splits.items()} == {"train": dataset.train, "test": dataset.test}
    for split in splits.values():
        assert split.images.shape[1:] == (dataset.channels, dataset.height, dataset.width)
        assert split.images.dtype == torch.uint8
        assert split.labels[split.labels >= 0].unique().tolist() == list(range(dataset.classes))
    assert (splits["test"].labels >= 0).all()
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
    with pytest.raises(UserError, match=r"^There is no dataset 'digit': choose one of digits, fashion_mnist, .*\.$"):
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
