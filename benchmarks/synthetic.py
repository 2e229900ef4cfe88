"""Images made up on the spot, so that measuring needs no download, and the configurations that go with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_bench.batch import Batch, Place
from ssl_bench.config.compose import compose
from ssl_bench.config.schema import Config
from ssl_bench.data import catalog
from ssl_bench.data.catalog import Dataset
from ssl_bench.data.images import Images

CLASSES = 10
TEST_IMAGES = 100
ACCELERATOR = {"cpu": "cpu", "cuda": "gpu"}  # what trainer.accelerator calls a device
# SimCLR's recipe for small colour images; crop, flip, blur and solarisation are those of augment=fashion_mnist.
COLOUR = tuple(
    f"augment.groups.global.{name}={value}"
    for name, value in {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "grayscale": 0.2}.items()
)


def pictures(count: int, channels: int, side: int) -> Tensor:
    """Smooth blobs with noise, uint8 ``[count, channels, side, side]``, always the same."""
    generator = torch.Generator().manual_seed(0)
    blobs = F.interpolate(torch.rand(count, channels, 4, 4, generator=generator), side, mode="bicubic")
    noise = 0.05 * torch.randn(blobs.shape, generator=generator)
    return (255 * (blobs + noise).clamp(0, 1)).to(torch.uint8)


def batches(images: Tensor, size: int) -> list[Batch]:
    """The images in batches of ``size``, each with its own place in epoch 0."""
    return [
        Batch(
            images=part,
            labels=torch.zeros(len(part), dtype=torch.int64),
            index=torch.arange(len(part)),
            place=Place(seed=0, epoch=0, step=step, first=0, size=len(part)),
        )
        for step, part in enumerate(torch.split(images, size))
    ]


def synthetic_dataset(count: int, channels: int, side: int) -> Dataset:
    """A dataset of ``count`` training images."""

    def read(_: object) -> dict[str, Images]:
        return {
            split: Images(pictures(size, channels, side), torch.arange(size) % CLASSES)
            for split, size in (("train", count), ("test", TEST_IMAGES))
        }

    return replace(
        catalog.find("fashion_mnist"),
        name="synthetic",
        classes=CLASSES,
        train=count,
        test=TEST_IMAGES,
        channels=channels,
        height=side,
        width=side,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        licence="",
        source="",
        read=read,
    )


@contextmanager
def in_catalog(dataset: Dataset) -> Iterator[None]:
    """Let a run find ``dataset`` by its name."""
    catalog.DATASETS[dataset.name] = dataset
    try:
        yield
    finally:
        del catalog.DATASETS[dataset.name]


def configuration(dataset: Dataset, *overrides: str, scale: str = "cpu") -> Config:
    """The program's configuration for ``dataset`` and ``overrides``, by default at the scale of CPU comparisons."""
    colour = COLOUR if dataset.channels == 3 else ()
    config = compose(["dataset=fashion_mnist", f"scale={scale}", f"dataset.size={dataset.height}", *colour, *overrides])
    return config.changed({"dataset.name": dataset.name})
