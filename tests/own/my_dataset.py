"""A user's own dataset: squares that are dark or bright."""

from __future__ import annotations

from pathlib import Path

import torch

from ssl_bench.data.catalog import Dataset
from ssl_bench.data.images import Images


def _squares(count: int, seed: int) -> Images:
    labels = torch.arange(count) % 2
    noise = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Images((80 * noise + 120 * labels[:, None, None, None]).to(torch.uint8), labels)


def read(data_dir: Path) -> dict[str, Images]:
    return {"train": _squares(400, 0), "test": _squares(50, 1)}


SQUARES = Dataset(
    name="squares",
    classes=2,
    train=400,
    test=50,
    channels=1,
    height=8,
    width=8,
    mean=(0.3908,),
    std=(0.2523,),
    licence="none",
    source="made up",
    read=read,
    names=("dark", "bright"),
)
