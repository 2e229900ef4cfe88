from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formats import tarred, unpacked
from torchvision.datasets import STL10

from ssl_bench.config.compose import compose
from ssl_bench.data import catalog
from ssl_bench.data.readers import stl10
from ssl_bench.data.splits import parts
from ssl_bench.errors import UserError
from ssl_bench.results.fingerprint import fingerprint
from ssl_bench.training.build import build_data

COUNTS = {"train": 20, "unlabeled": 23, "test": 7}
RANDOM = np.random.default_rng(0)
PIXELS = {split: RANDOM.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8) for split, count in COUNTS.items()}
LABELS = {"train": [1 + number % 10 for number in range(20)], "test": [10, 1, 2, 3, 4, 5, 6]}
FOLDS = [[(fold + 5 * step) % 20 for step in range(4)] for fold in range(10)]  # a fifth of train each


def by_column(images: np.ndarray) -> bytes:
    """As the official files have them: an image's channels in turn, each column by column."""
    return b"".join(bytes(column) for image in images for channel in image for column in channel.T)


FILES = {
    **{f"stl10_binary/{split}_X.bin": by_column(images) for split, images in PIXELS.items()},
    **{f"stl10_binary/{split}_y.bin": bytes(labels) for split, labels in LABELS.items()},
    "stl10_binary/class_names.txt": b"airplane\nbird\n",
    "stl10_binary/fold_indices.txt": "".join(f"{' '.join(map(str, sorted(fold)))} \n" for fold in FOLDS).encode(),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stl10, "COUNTS", COUNTS)
    monkeypatch.setattr(stl10, "STEP", 4)
    monkeypatch.setattr(stl10, "URL", "http://127.0.0.1:9/")


def place(folder: Path, packed: bool, **changes: bytes) -> None:
    files = {**FILES, **{f"stl10_binary/{name}.bin": content for name, content in changes.items()}}
    if packed:
        tarred(folder / "stl10_binary.tar.gz", files)
    else:
        unpacked(folder, files)


EVERYTHING: dict[str, Any] = {"unlabelled": True, "fold": None}


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        stl10.read(folder, **EVERYTHING | changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_columns_become_rows_and_unlabelled_images_follow_the_labelled_ones(packed: bool, tmp_path: Path) -> None:
    place(tmp_path, packed)
    splits = stl10.read(tmp_path, **EVERYTHING)
    expected = np.concatenate([PIXELS["train"], PIXELS["unlabeled"]])
    assert np.array_equal(splits["train"].images.numpy(), expected)
    assert np.array_equal(splits["test"].images.numpy(), PIXELS["test"])
    assert splits["train"].labels.tolist() == [label - 1 for label in LABELS["train"]] + [-1] * 23
    assert splits["test"].labels.tolist() == [label - 1 for label in LABELS["test"]]


def test_torchvision_reads_the_same_from_the_same_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place(tmp_path, packed=False)
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    splits = stl10.read(tmp_path, **EVERYTHING)
    for ours, theirs in (("train", "train+unlabeled"), ("test", "test")):
        found = STL10(tmp_path, split=theirs)
        assert np.array_equal(splits[ours].images.numpy(), found.data)
        assert splits[ours].labels.tolist() == found.labels.tolist()
    archive = stl10.ARCHIVE
    assert (STL10.tgz_md5, STL10.filename, STL10.base_folder) == (archive.md5, archive.name, archive.folder)


@pytest.mark.parametrize("hold_out_validation", [False, True])
def test_unlabelled_images_are_pretrained_on_and_reach_neither_neighbours_nor_probe(
    hold_out_validation: bool, tmp_path: Path
) -> None:
    place(tmp_path, packed=False)
    labels = stl10.read(tmp_path, **EVERYTHING)["train"].labels
    rule = parts(labels, subset_size=None, label_count=None, hold_out_validation=hold_out_validation)
    assert set(range(20, 43)) <= set(rule.pretraining.tolist())
    for part in (rule.bank, rule.probe, rule.validation):
        assert len(part)
        assert int(part.max()) < 20
    assert torch.equal(torch.cat([rule.probe, rule.validation]).sort().values, torch.arange(20))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fold", [0, 3, 9])
@pytest.mark.parametrize("split", ["train+unlabeled", "unlabeled", "train"])
def test_of_a_fold_only_its_labels_are_known_and_its_images_stay(
    split: str, fold: int, packed: bool, tmp_path: Path
) -> None:
    place(tmp_path, packed)
    entry = catalog.stl10_with(split, fold)
    train = catalog.load(replace(entry, train=20 if split == "train" else 43, test=7), tmp_path)["train"]
    assert torch.equal(train.images, stl10.read(tmp_path, **EVERYTHING)["train"].images[: len(train)])
    assert (train.labels >= 0).nonzero()[:, 0].tolist() == sorted(FOLDS[fold])
    assert all(train.labels[row] == LABELS["train"][row] - 1 for row in FOLDS[fold])


def test_torchvision_reads_the_same_folds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place(tmp_path, packed=False)
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    for fold in range(10):
        found, ours = STL10(tmp_path, split="train", folds=fold), stl10.read(tmp_path, unlabelled=False, fold=fold)
        known = ours["train"].labels >= 0
        assert np.array_equal(ours["train"].images[known].numpy(), found.data)
        assert ours["train"].labels[known].tolist() == found.labels.tolist()


@pytest.mark.parametrize("fold", [None, 1])
@pytest.mark.parametrize("hold_out_validation", [False, True])
@pytest.mark.parametrize("split", ["train+unlabeled", "unlabeled", "train"])
def test_what_is_pretrained_on_and_which_labels_are_known_at_the_official_size(
    split: str, hold_out_validation: bool, fold: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    entry = catalog.stl10_with(split, fold)
    labels = torch.full((entry.train,), -1)
    known = torch.arange(5_000) if fold is None else 5 * torch.arange(1_000) + fold
    labels[known] = torch.arange(len(known)) % 10
    rule = parts(
        labels,
        subset_size=None,
        label_count=None,
        hold_out_validation=hold_out_validation,
        pretraining_from=entry.pretraining_from,
    )
    pretraining = {
        "train+unlabeled": set(range(105_000)),
        "unlabeled": set(range(5_000, 105_000)),
        "train": set(range(5_000)),
    }[split]
    if hold_out_validation:
        pretraining -= set(rule.validation.tolist())
    assert set(rule.pretraining.tolist()) == pretraining
    count = len(known)
    assert len(rule.validation) == count // 10
    assert torch.equal(torch.cat([rule.probe, rule.validation]).sort().values, known)
    assert torch.equal(rule.bank, rule.probe if hold_out_validation else known)


def test_existing_runs_keep_their_names_and_folds_are_named_by_their_content(tmp_path: Path) -> None:
    config = compose(["dataset=stl10"])
    assert (config.dataset.options["split"], config.dataset.options["fold"]) == ("train+unlabeled", None)
    other = compose(["dataset=stl10", "dataset.split=unlabeled", "dataset.fold=3"])
    names = {fingerprint(some.as_dict(), data_digest="d", precision="32-true") for some in (config, other)}
    assert len(names) == 1
    before = replace(config, dataset=replace(config.dataset, options={}))
    assert {fingerprint(before.as_dict(), data_digest="d", precision="32-true")} == names
    place(tmp_path, packed=False)
    digests = set()
    for split in ("train+unlabeled", "unlabeled", "train"):
        for fold in (None, 1, 2):
            entry = catalog.stl10_with(split, fold)
            entry = replace(
                entry, train=20 if split == "train" else 43, test=7, pretraining_from=20 * (split[0] == "u")
            )
            data = build_data(replace(config, data_dir=str(tmp_path), subset=None))
            data.dataset = entry
            digests.add(data.digest)
    assert len(digests) == 9


@pytest.mark.parametrize("option", ["dataset.fold=10", "dataset.fold=-1", "dataset.fold=0.5", "dataset.split=test"])
def test_other_folds_and_splits_are_refused(option: str) -> None:
    with pytest.raises(UserError, match="is not allowed"):
        compose(["dataset=stl10", option])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"0 1 2 3\n" * 9, "9 lines with 0 numbers in line 2"),
        (b"0 1 2 3\n" * 11, "11 lines"),
        (b"0 1 2\n" * 10, "with 3 numbers in line 2"),
        (b"0 1 2 2\n" * 10, "with 3 numbers in line 2"),
        (b"0 1 2 20\n" * 10, "from 0 to 19"),
        (b"0 1 2 3 x\n" * 10, "with 4 numbers in line 2"),
        (b"0 1 2 -3\n" * 10, "with 3 numbers in line 2"),
        (b"", "0 lines"),
        (b"\xff\n" * 10, "with 0 numbers"),
    ],
)
def test_damaged_folds_are_named_where_one_is_asked_for(content: bytes, found: str, tmp_path: Path) -> None:
    unpacked(tmp_path, {**FILES, "stl10_binary/fold_indices.txt": content})
    sentence = refusal(tmp_path, fold=1)
    assert sentence.startswith(f"fold_indices.txt of {tmp_path / 'stl10_binary'} is damaged: expected 10 lines of 4 ")
    assert found in sentence
    assert len(stl10.read(tmp_path, **EVERYTHING)["train"]) == 43


def test_files_that_are_not_asked_for_may_be_missing(tmp_path: Path) -> None:
    place(tmp_path, packed=False)
    (tmp_path / "stl10_binary" / "fold_indices.txt").unlink()
    assert len(stl10.read(tmp_path, **EVERYTHING)["train"]) == 43
    (tmp_path / "stl10_binary" / "unlabeled_X.bin").unlink()
    assert len(stl10.read(tmp_path, unlabelled=False, fold=None)["train"]) == 20
    assert f"STL-10 ({tmp_path / 'stl10_binary'} lacks unlabeled_X.bin) is not there" in refusal(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("unlabeled_X", FILES["stl10_binary/unlabeled_X.bin"][:-1], "expected 635904 bytes, found 635903"),
        ("test_X", b"", "expected 193536 bytes, found 0"),
        ("train_y", bytes(21), "expected 20 bytes, found 21"),
        ("test_y", bytes([0, 1, 2, 3, 4, 5, 6]), "expected 1 to 10, found 0"),
        ("train_y", bytes([11] * 20), "expected 1 to 10, found 11"),
    ],
)
def test_a_file_of_the_wrong_length_or_label_is_named(
    name: str, content: bytes, found: str, packed: bool, tmp_path: Path
) -> None:
    place(tmp_path, packed, **{name: content})
    sentence = refusal(tmp_path)
    assert f"{name}.bin of {tmp_path}" in sentence
    assert found in sentence
