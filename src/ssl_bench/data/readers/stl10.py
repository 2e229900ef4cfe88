"""STL-10 (Coates, Lee & Ng 2011), binary version, unpacked or straight from the archive.

An image is 3 × 96 × 96 bytes, channel after channel and each column by column; labels are bytes from 1 to 10
(https://cs.stanford.edu/~acoates/stl10/). ``train`` here is the official train and unlabeled together, as one pretrains
on; only the first 5,000 images of it have a label. By the official protocol one learns from the 1,000 labels of one of
ten folds at a time, and averages the ten accuracies on the test images.
"""

from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from ssl_bench.data.images import Images
from ssl_bench.data.readers.archive import Archive, check_labels, intact, located, misfit, streams

CLASSES = 10
SIDE = 96
SIZE = 3 * SIDE * SIDE  # bytes of an image
COUNTS = {"train": 5_000, "unlabeled": 100_000, "test": 8_000}
FOLDS = 10
FOLD_FILE = "fold_indices.txt"  # a line of zero-based positions in train for each fold
ARCHIVE = Archive(
    name="stl10_binary.tar.gz",
    size=2_640_397_119,
    md5="91f7769df0f17e558f3565bffb0c7dfb",
    folder="stl10_binary",
    files=("train_X.bin", "train_y.bin", "unlabeled_X.bin", "test_X.bin", "test_y.bin"),
    dataset="stl10",
)
URL = "http://ai.stanford.edu/~acoates/stl10/"
STEP = 1_000  # images on their way into memory at a time


def read(data_dir: Path, *, unlabelled: bool, fold: int | None) -> dict[str, Images]:
    """``train`` (labelled, then unlabelled with -1) and ``test``, from ``data_dir``, or from the internet.

    unlabelled: whether train holds the unlabelled images, too. fold: 0–9 leaves only the labels of this fold, and
    -1 in place of the others; None leaves all.

    Raises:
        UserError: the files are nowhere and cannot be fetched, or are damaged.
    """
    wanted = [*ARCHIVE.files, *([] if fold is None else [FOLD_FILE])]
    if not unlabelled:
        wanted.remove("unlabeled_X.bin")
    archive, path = located([replace(ARCHIVE, files=tuple(wanted))], data_dir, url=URL, title="STL-10")
    labelled = COUNTS["train"]
    train = torch.empty(labelled + (COUNTS["unlabeled"] if unlabelled else 0), 3, SIDE, SIDE, dtype=torch.uint8)
    test = torch.empty(COUNTS["test"], 3, SIDE, SIDE, dtype=torch.uint8)
    places = {"train_X.bin": train[:labelled], "unlabeled_X.bin": train[labelled:], "test_X.bin": test}
    labels = {"train_y.bin": torch.full((len(train),), -1), "test_y.bin": torch.empty(len(test), dtype=torch.int64)}
    known = torch.ones(len(train), dtype=torch.bool)
    with intact(path):
        for name, stream, size in streams(path, archive):
            if name == FOLD_FILE:
                known = _fold(stream.read(), fold or 0, len(train), f"{name} of {path}")
                continue
            count = COUNTS[name.partition("_")[0]]
            expected = count * SIZE if name in places else count
            if size != expected:
                raise misfit(f"{name} of {path}", f"{expected} bytes", size)
            if name in places:
                _fill(places[name], stream)
            else:
                found = torch.tensor(list(stream.read()))
                labels[name][:count] = check_labels(found, 1, CLASSES, f"{name} of {path}")
    labels["train_y.bin"][~known] = -1
    return {"train": Images(train, labels["train_y.bin"]), "test": Images(test, labels["test_y.bin"])}


def _fold(content: bytes, fold: int, size: int, file: str) -> Tensor:
    """Which of ``size`` images of train belong to a fold; bool ``[size]``."""
    count = COUNTS["train"]
    lines = content.splitlines()
    numbers = lines[fold].split() if len(lines) == FOLDS else []
    rows = {int(number) for number in numbers if number.isdigit()}
    if not len(rows) == len(numbers) == count // 5 or max(rows) >= count:
        raise misfit(
            file,
            f"{FOLDS} lines of {count // 5} different numbers from 0 to {count - 1}",
            f"{len(lines)} lines with {len(rows)} numbers in line {fold + 1}",
        )
    known = torch.zeros(size, dtype=torch.bool)
    known[list(rows)] = True
    return known


def _fill(place: Tensor, stream: IO[bytes]) -> None:
    """Read images column by column into ``place``, uint8 ``[M, 3, 96, 96]``."""
    target = place.numpy()
    for start in range(0, len(target), STEP):
        part = target[start : start + STEP]
        content = stream.read(len(part) * SIZE)
        part[:] = np.frombuffer(content, np.uint8).reshape(-1, 3, SIDE, SIDE).transpose(0, 1, 3, 2)
