from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formats import tarred, unpacked
from torchvision.datasets import STL10

from ssl_bench.data.readers import stl10
from ssl_bench.data.splits import parts
from ssl_bench.errors import UserError

COUNTS = {"train": 20, "unlabeled": 23, "test": 7}
RANDOM = np.random.default_rng(0)
PIXELS = {split: RANDOM.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8) for split, count in COUNTS.items()}
LABELS = {"train": [1 + number % 10 for number in range(20)], "test": [10, 1, 2, 3, 4, 5, 6]}


def by_column(images: np.ndarray) -> bytes:
    """As the official files have them: an image's channels in turn, each column by column."""
    return b"".join(bytes(column) for image in images for channel in image for column in channel.T)


FILES = {
    **{f"stl10_binary/{split}_X.bin": by_column(images) for split, images in PIXELS.items()},
    **{f"stl10_binary/{split}_y.bin": bytes(labels) for split, labels in LABELS.items()},
    "stl10_binary/class_names.txt": b"airplane\nbird\n",
    "stl10_binary/fold_indices.txt": b"0 1 2\n" * 10,
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stl10, "COUNTS", COUNTS)
    monkeypatch.setattr(stl10, "STEP", 4)
    monkeypatch.setattr(stl10, "URL", "http://127.0.0.1:9/stl10_binary.tar.gz")


def place(folder: Path, packed: bool, **changes: bytes) -> None:
    files = {**FILES, **{f"stl10_binary/{name}.bin": content for name, content in changes.items()}}
    if packed:
        tarred(folder / "stl10_binary.tar.gz", files)
    else:
        unpacked(folder, files)


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        stl10.read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_columns_become_rows_and_unlabelled_images_follow_the_labelled_ones(packed: bool, tmp_path: Path) -> None:
    place(tmp_path, packed)
    splits = stl10.read(tmp_path)
    expected = np.concatenate([PIXELS["train"], PIXELS["unlabeled"]])
    assert np.array_equal(splits["train"].images.numpy(), expected)
    assert np.array_equal(splits["test"].images.numpy(), PIXELS["test"])
    assert splits["train"].labels.tolist() == [label - 1 for label in LABELS["train"]] + [-1] * 23
    assert splits["test"].labels.tolist() == [label - 1 for label in LABELS["test"]]


def test_torchvision_reads_the_same_from_the_same_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place(tmp_path, packed=False)
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    splits = stl10.read(tmp_path)
    for ours, theirs in (("train", "train+unlabeled"), ("test", "test")):
        found = STL10(tmp_path, split=theirs)
        assert np.array_equal(splits[ours].images.numpy(), found.data)
        assert splits[ours].labels.tolist() == found.labels.tolist()
    assert (STL10.tgz_md5, STL10.filename, STL10.base_folder) == (stl10.MD5, stl10.ARCHIVE, stl10.FOLDER)


@pytest.mark.parametrize("hold_out_validation", [False, True])
def test_unlabelled_images_are_pretrained_on_and_reach_neither_neighbours_nor_probe(
    hold_out_validation: bool, tmp_path: Path
) -> None:
    place(tmp_path, packed=False)
    labels = stl10.read(tmp_path)["train"].labels
    rule = parts(labels, subset_size=None, label_count=None, hold_out_validation=hold_out_validation)
    assert set(range(20, 43)) <= set(rule.pretraining.tolist())
    for part in (rule.bank, rule.probe, rule.validation):
        assert len(part)
        assert int(part.max()) < 20
    assert torch.equal(torch.cat([rule.probe, rule.validation]).sort().values, torch.arange(20))


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


def test_an_archive_cut_short_is_refused(tmp_path: Path) -> None:
    place(tmp_path, packed=True)
    path = tmp_path / "stl10_binary.tar.gz"
    path.write_bytes(path.read_bytes()[:400_000])
    assert f"{path} is damaged" in refusal(tmp_path)


def test_missing_files_are_asked_for_in_one_sentence(tmp_path: Path) -> None:
    sentence = refusal(tmp_path / "data")
    assert sentence.startswith(f"STL-10 is not there: put stl10_binary.tar.gz into {tmp_path / 'data'}, packed or unpa")
