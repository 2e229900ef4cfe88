"""Views drawn for whole batches against PIL images that worker processes change one by one, as the peers do it."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from benchmarks.measurement import Measurement, Target, alternate, rates
from benchmarks.synthetic import batches, configuration, pictures, synthetic_dataset
from ssl_bench.augment.draws import ViewGroup
from ssl_bench.augment.views import Views
from ssl_bench.training import build

BATCH = 128


@dataclass(frozen=True)
class Case:
    """Views of ``side`` pixels, drawn ``chunk`` images at a time."""

    channels: int
    side: int
    chunk: int
    images: int
    at_least: float | None

    def __str__(self) -> str:
        colour = "colour" if self.channels == 3 else "gray"
        return f"{self.side} px {colour}"


CASES = (
    Case(3, 32, chunk=128, images=2048, at_least=6.0),
    Case(3, 96, chunk=32, images=1024, at_least=1.8),
    Case(1, 28, chunk=128, images=2048, at_least=None),
)
SMALL_CASES = (Case(3, 32, chunk=128, images=16, at_least=6.0),)


def measure(repeats: int, *, small: bool, device: torch.device) -> list[Measurement]:
    """Two views of every image: random crop, flip, colour jitter, gray, blur, solarisation, normalisation."""
    return [_measure(case, repeats, 1 if small else 3, device) for case in (SMALL_CASES if small else CASES)]


def _measure(case: Case, repeats: int, turns: int, device: torch.device) -> Measurement:
    images = pictures(case.images, case.channels, case.side)
    dataset = synthetic_dataset(case.images, case.channels, case.side)
    config = configuration(dataset, "method=simclr", "backbone.width=1", f"augment.chunk={case.chunk}")
    views = build.build_method(config, dataset).views
    on_device = build.build_views(config, dataset).to(device)
    ours = [batch.to(device) for batch in batches(images, BATCH)]
    # The same processors for both: as many worker processes as we have threads.
    workers = torch.get_num_threads()
    loader = DataLoader(
        PILViews(images, views), BATCH, num_workers=workers, persistent_workers=True, multiprocessing_context="fork"
    )
    # A batch is dropped before the next one is drawn, as in training, on both sides.
    pairs = alternate(
        lambda: deque((on_device(batch) for batch in ours), maxlen=1),
        lambda: deque(iter(loader), maxlen=1),
        repeats,
        turns=turns,
        device=device,
    )
    return Measurement(
        benchmark="augment",
        case=str(case),
        ours=f"views drawn {case.chunk} images at a time, {workers} threads"
        if device.type == "cpu"
        else f"views drawn {BATCH} images at a time",
        baseline=f"torchvision on PIL images, {workers} worker processes",
        unit="views/s",
        pairs=rates(pairs, turns * views.count * case.images),
        meaning="times as fast as the baseline",
        target=Target(case.at_least, at_least=True) if case.at_least else None,
    )


class PILViews(Dataset[list[Tensor]]):
    """The same recipe with torchvision's transforms on PIL images."""

    def __init__(self, images: Tensor, views: Views) -> None:
        arrays = images.permute(0, 2, 3, 1).numpy()
        self.images = [Image.fromarray(array.squeeze()) for array in arrays]
        mean, std = views.mean.flatten().tolist(), views.std.flatten().tolist()
        self.transforms = [_transform(group, mean, std) for group in views.groups for _ in range(group.count)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> list[Tensor]:
        return [transform(self.images[row]) for transform in self.transforms]


def _transform(group: ViewGroup, mean: list[float], std: list[float]) -> T.Compose:
    return T.Compose(
        [
            T.RandomResizedCrop(group.size, scale=group.crop_scale, ratio=group.crop_ratio),
            T.RandomHorizontalFlip(group.flip),
            T.RandomApply(
                [T.ColorJitter(group.brightness, group.contrast, group.saturation, group.hue)], p=group.jitter
            ),
            T.RandomGrayscale(group.grayscale),
            T.RandomApply([PILBlur(group.blur_sigma)], p=group.blur),
            T.RandomSolarize(255 * group.solarize_threshold, p=group.solarize),
            T.ToTensor(),
            T.Normalize(mean, std),
        ]
    )


class PILBlur:
    """Gaussian blur by PIL, as the peers have it: two to five times as fast as torchvision's on one small image."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.sigma)))
