"""Tiny-ImageNet (Stanford CS 231N, 2015): 200 classes of ImageNet at 64 × 64 pixels, zipped or unpacked.

Its validation images are the test split here, since the labels of its test images were never published. Classes are
numbered in the order of their WordNet names.
"""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from ssl_bench.data.images import Images
from ssl_bench.data.readers.archive import MEND, Archive, intact, located, misfit
from ssl_bench.data.readers.pictures import Listing, decode_all

SIDE = 64
WNIDS, ANNOTATIONS = "wnids.txt", "val/val_annotations.txt"
ARCHIVE = Archive(
    name="tiny-imagenet-200.zip",
    size=248_100_043,
    md5="90528d7ca1a48142e341f4ef8d21d0de",
    folder="tiny-imagenet-200",
    files=(WNIDS, ANNOTATIONS),
    dataset="tiny_imagenet",
)
URL = "http://cs231n.stanford.edu/"


def read(data_dir: Path) -> dict[str, Images]:
    """``train`` and ``test`` (the official validation images), from ``data_dir``, or from the internet.

    Raises:
        UserError: the files are nowhere and cannot be fetched, or are damaged.
    """
    _, path = located([ARCHIVE], data_dir, url=URL, title="Tiny-ImageNet")
    with intact(path):
        if path.is_dir():
            names = [
                Path(place, name).relative_to(path).as_posix() for place, _, files in os.walk(path) for name in files
            ]
            return _read(path, names, lambda name: (path / name).read_bytes())
        with zipfile.ZipFile(path) as zipped:
            names = [name.removeprefix(f"{ARCHIVE.folder}/") for name in zipped.namelist()]
            return _read(path, names, lambda name: zipped.read(f"{ARCHIVE.folder}/{name}"))


def _read(path: Path, names: list[str], content: Callable[[str], bytes]) -> dict[str, Images]:
    pictures = sorted(name for name in names if name.endswith(".JPEG"))

    def lines(name: str) -> list[list[str]]:
        if name not in names:
            raise misfit(path, f"{name} in it", "no such file")
        return [line.split() for line in content(name).decode(errors="replace").splitlines() if line.strip()]

    number = {wnid: place for place, (wnid, *_) in enumerate(sorted(lines(WNIDS)))}
    validation = {f"val/images/{line[0]}": line[1] for line in lines(ANNOTATIONS) if len(line) > 1}
    class_of = {
        "train": {name: name.split("/")[1] for name in pictures if name.startswith("train/")},
        "test": {name: validation.get(name, "") for name in pictures if name.startswith("val/images/")},
    }
    unknown = [name for classes in class_of.values() for name, wnid in classes.items() if wnid not in number]
    if unknown:
        raise misfit(path, f"a class of {WNIDS} for {unknown[0]}", "none")
    splits = {}
    for split, classes in class_of.items():
        listing = Listing(path, list(classes), torch.tensor([number[wnid] for wnid in classes.values()]), content)
        advice = f"it belongs to {path}: {MEND[:-1]}"
        found = decode_all(listing, side=SIDE, skip=False, max_pixels=SIDE * SIDE, advice=advice)
        splits[split] = Images(found.images, found.labels)
    return splits
