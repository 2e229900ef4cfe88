"""The digits that scikit-learn ships: 1,797 images of 8 × 8 pixels; nothing to download."""

import functools
from pathlib import Path

import torch
from torch import Tensor

from ssl_bench.data.images import Images
from ssl_bench.data.splits import SPLIT_SEED, hold_out

TEST_FRACTION = 0.2  # there is no official split


def read(data_dir: Path) -> dict[str, Images]:
    """``train`` and ``test``; the gray levels 0–16 of the source spread over 0–255. ``data_dir`` is not used."""
    images, labels = _source()
    train, test = hold_out(labels, TEST_FRACTION, SPLIT_SEED)
    return {"train": Images(images[train], labels[train]), "test": Images(images[test], labels[test])}


@functools.cache  # reading the numbers from their text takes 30 ms
def _source() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits  # takes more than a second, and only these digits need it

    levels, numbers = load_digits(return_X_y=True)  # float64 [1797, 64] in 0–16, int [1797]
    images = torch.from_numpy(levels * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)
    return images, torch.from_numpy(numbers).long()
