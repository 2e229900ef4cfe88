"""ImageNet-100 (Tian, Krishnan & Isola 2020): 100 of ImageNet's classes, out of an ImageNet folder or its tars.

The folder is laid out as everyone keeps it: ``train/n01558993/….JPEG`` and ``val/n01558993/….JPEG``; it may hold all
1,000 classes. Where it holds the official tars instead, these are read without being unpacked. The official validation
images are the test split here. Classes are numbered in the order of their names.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
from pathlib import Path

from ssl_bench.data import packed
from ssl_bench.data.images import Images
from ssl_bench.data.readers import imagenet_tars
from ssl_bench.data.readers.folder import Folder, Listing, restricted
from ssl_bench.errors import UserError

CLASSES = 100
LIST = "imagenet100.txt"  # of the package
PARTS = {"train": "train", "test": "val"}  # our splits, their folders
SHA256 = "5ee5db69d488bb799a286d8e181801c3d02798776c1ce9203e5450f64e086e07"


def class_list() -> list[str]:
    """The WordNet names of the classes, sorted; raises UserError if the package's list was changed."""
    content = importlib.resources.files("ssl_bench.data").joinpath(LIST).read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(f"The package's list {LIST} is not the published one: install ssl_bench anew.")
    return sorted(content.decode().split())


def listings(folder: Folder, data_dir: Path) -> dict[str, Listing]:
    """The pictures of ``train`` and ``test`` (the official validation images) in ``folder.root``, or in ``data_dir``.

    Raises:
        UserError: there is no ImageNet folder, or classes are missing.
    """
    classes = class_list()
    root = Path(folder.root) if folder.root else _find(data_dir)
    if not _is_unpacked(root) and imagenet_tars.are_in(root):
        return imagenet_tars.listings(root, classes)
    return {split: restricted(root / name, classes) for split, name in PARTS.items()}


def read(folder: Folder, data_dir: Path) -> dict[str, Images]:
    """``train`` and ``test`` from their pack or decoded; raises UserError as ``listings`` and ``packed.read``."""
    return packed.read("imagenet100", listings(folder, data_dir), folder, data_dir)


def _is_unpacked(place: Path) -> bool:
    return all(os.path.isdir(place / name) for name in PARTS.values())


def _find(data_dir: Path) -> Path:
    for place in (data_dir / "imagenet100", data_dir / "imagenet", data_dir):
        if _is_unpacked(place) or imagenet_tars.are_in(place):
            return place
    raise UserError(
        f"ImageNet-100 is not there: get ImageNet (ILSVRC 2012) from https://image-net.org, put {imagenet_tars.TRAIN}, "
        f"{imagenet_tars.VAL} and {imagenet_tars.KIT}.tar.gz into {data_dir / 'imagenet'} or unpack it there as "
        "train/<class>/ and val/<class>/, or set dataset.root=<its folder>."
    )
