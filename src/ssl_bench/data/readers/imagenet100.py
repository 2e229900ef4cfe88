"""ImageNet-100 (Tian, Krishnan & Isola 2020): 100 of ImageNet's classes, out of an ImageNet folder or its tars.

The folder is laid out as everyone keeps it: ``train/n01558993/….JPEG`` and ``val/n01558993/….JPEG``; it may hold all
1,000 classes. Where it holds an official tar instead, this is read without being unpacked. The official validation
images are the test split here. Classes are numbered in the order of their names.
"""

import importlib.resources
import os
from pathlib import Path

from ssl_bench.data import packed
from ssl_bench.data.images import Images
from ssl_bench.data.readers import imagenet_tars
from ssl_bench.data.readers.folder import Folder, restricted
from ssl_bench.data.readers.pictures import Listing
from ssl_bench.errors import UserError

LIST = "imagenet100.txt"  # of the package
PARTS = {"train": "train", "test": "val"}  # our splits, their folders
TARS = {"train": imagenet_tars.TRAIN, "test": imagenet_tars.VAL}
KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")  # where its archive has them


def class_list() -> list[str]:
    """The WordNet names of the classes, sorted."""
    return sorted(importlib.resources.files("ssl_bench.data").joinpath(LIST).read_text().split())


def listings(folder: Folder, data_dir: Path) -> dict[str, Listing]:
    """The pictures of ``train`` and ``test`` (the official validation images) in ``folder.root``, or in ``data_dir``.

    Raises:
        UserError: there is no ImageNet folder, it is laid out in another way, or classes are missing.
    """
    classes = class_list()
    root = Path(folder.root) if folder.root else find(data_dir)
    _require_layout(root)
    return {
        split: restricted(path, classes) if path.name in PARTS.values() else imagenet_tars.read_listing(path, classes)
        for split, path in sources(root).items()
    }


def sources(root: Path) -> dict[str, Path]:
    """Where each split lies: its folder with class folders, else its official tar, else the folder that is missing."""
    found = {}
    for split, name in PARTS.items():
        folder, tar = root / name, root / TARS[split]
        found[split] = tar if tar.is_file() and not _has_folders(folder) else folder
    return found


def read(folder: Folder, data_dir: Path) -> dict[str, Images]:
    """``train`` and ``test`` from their pack or decoded; raises UserError as ``listings`` and ``packed.read``."""
    return packed.read("imagenet100", listings(folder, data_dir), folder, data_dir)


def find(data_dir: Path) -> Path:
    """The folder of an ImageNet, in ``data_dir`` or itself; UserError, with how to get one, where there is none."""
    for place in (data_dir / "imagenet100", data_dir / "imagenet", data_dir):
        if _is_imagenet(place):
            return place
    raise UserError(
        f"ImageNet-100 is not there: get ImageNet (ILSVRC 2012) from https://image-net.org, put {imagenet_tars.TRAIN}, "
        f"{imagenet_tars.VAL} and {imagenet_tars.KIT}.tar.gz into {data_dir / 'imagenet'} or unpack it there as "
        "train/<class>/ and val/<class>/, or set dataset.root=<its folder>."
    )


def _is_imagenet(place: Path) -> bool:
    return all(path.exists() for path in sources(place).values())


def _require_layout(root: Path) -> None:
    """UserError, with what to do, where ``root`` is not the folder of an ImageNet."""
    if not root.is_dir():
        raise UserError(f"{root} does not exist: set dataset.root to the folder that holds train/ and val/.")
    if not _is_imagenet(root):
        below = [root / name for name in KAGGLE] + [path for path in sorted(root.iterdir()) if path.is_dir()]
        near = next((path for path in (root.parent, *below) if _is_imagenet(path)), None)
        raise UserError(
            f"{root} does not hold train/ and val/, but {near} does: set dataset.root={near}."
            if near
            else f"{root} holds neither train/ and val/ with a folder per class nor {imagenet_tars.TRAIN} and "
            f"{imagenet_tars.VAL}: set dataset.root to the folder that does."
        )
    for split, path in sources(root).items():
        if path.is_dir() and not _has_folders(path):
            kit = f" and {imagenet_tars.KIT}.tar.gz" if split == "test" else ""
            count = sum(1 for _ in path.iterdir())
            raise UserError(
                f"{path} has {count} files and no class folders: sort them into {path.name}/<class>/, or put "
                f"{TARS[split]}{kit} into {root}."
            )


def _has_folders(path: Path) -> bool:
    if not path.is_dir():
        return False
    with os.scandir(path) as entries:
        return any(entry.is_dir() for entry in entries)
