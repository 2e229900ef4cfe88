"""What each dataset is, and how to get it: one entry per dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ssl_bench.data.images import Images
from ssl_bench.data.readers import cifar, digits, fashion_mnist
from ssl_bench.errors import UserError


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is known of a dataset before a file is opened."""

    name: str
    classes: int
    train: int  # images of the official split
    test: int
    channels: int
    height: int  # pixels, native
    width: int
    mean: tuple[float, ...]  # per channel, over the train split in 0–1
    std: tuple[float, ...]
    licence: str
    source: str  # who made it, and where it is described
    read: Callable[[Path], dict[str, Images]]  # data_dir → "train" and "test"


CIFAR_SOURCE = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, University of Toronto, 2009."

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="digits",
            classes=digits.CLASSES,
            train=1_438,
            test=359,
            channels=1,
            height=8,
            width=8,
            mean=(0.3054,),
            std=(0.3758,),
            licence="CC BY 4.0",
            source=(
                "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning "
                "Repository, 1998: the 1,797 images of its test set, as shipped with scikit-learn."
            ),
            read=digits.read,
        ),
        Dataset(
            name="fashion_mnist",
            classes=fashion_mnist.CLASSES,
            train=60_000,
            test=10_000,
            channels=1,
            height=28,
            width=28,
            mean=(0.2860,),
            std=(0.3530,),
            licence="MIT",
            source=(
                "H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking "
                "Machine Learning Algorithms, arXiv:1708.07747, 2017."
            ),
            read=fashion_mnist.read,
        ),
        Dataset(
            name="cifar10",
            classes=cifar.CIFAR10.classes,
            train=50_000,
            test=10_000,
            channels=3,
            height=cifar.SIDE,
            width=cifar.SIDE,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            licence="none stated",
            source=CIFAR_SOURCE,
            read=cifar.read10,
        ),
        Dataset(
            name="cifar100",
            classes=cifar.CIFAR100.classes,
            train=50_000,
            test=10_000,
            channels=3,
            height=cifar.SIDE,
            width=cifar.SIDE,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            licence="none stated",
            source=CIFAR_SOURCE,
            read=cifar.read100,
        ),
    )
}


def find(name: str) -> Dataset:
    """The entry called ``name``.

    Raises:
        UserError: there is none.
    """
    if name not in DATASETS:
        raise UserError(f"There is no dataset {name!r}: choose one of {', '.join(DATASETS)}.")
    return DATASETS[name]


def load(name: str, data_dir: str | Path) -> dict[str, Images]:
    """The official splits ``train`` and ``test`` of a dataset, in memory.

    Raises:
        UserError: the name is unknown, the files are missing or damaged, or are not those of this dataset.
    """
    dataset = find(name)
    splits = dataset.read(Path(data_dir))
    for split, size in (("train", dataset.train), ("test", dataset.test)):
        expected = (size, dataset.channels, dataset.height, dataset.width)
        found = tuple(splits[split].images.shape)
        if found != expected:
            raise UserError(
                f"The {split} split of {name} found for data_dir={data_dir} is not the official one: expected images × "
                f"channels × height × width = {_times(expected)}, found {_times(found)}; replace its files."
            )
    return splits


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
