"""What is drawn for each image of a view: a recipe, and parameters as rows of one tensor.

Numbers → parameters: ``Place.uniform`` gives each image of the global batch its numbers, and ``ViewParameters.sample``
turns them into parameters with torchvision's distributions. Both happen on the host; to an accelerator the parameters
of all views travel as one tensor.

Shapes: n images of this rank.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_bench.conditions import require_drawable


@dataclass(frozen=True)
class ViewGroup:
    """``count`` views drawn alike. Probabilities are in [0, 1], ranges are (low, high)."""

    count: int
    size: int  # S
    crop_scale: tuple[float, float]  # share of the image's area
    crop_ratio: tuple[float, float]  # width / height
    flip: float  # probability
    jitter: float  # probability that the four strengths below act
    brightness: float  # the factor is uniform in [max(0, 1 - strength), 1 + strength]
    contrast: float
    saturation: float
    hue: float  # the shift is uniform in [-strength, strength] of the colour circle
    grayscale: float  # probability
    blur: float  # probability
    blur_sigma: tuple[float, float]  # pixels
    solarize: float  # probability
    solarize_threshold: float  # in [0, 1]

    def __post_init__(self) -> None:
        require_drawable(vars(self))

    @property
    def blur_kernel(self) -> int:
        """Kernel size in pixels: a tenth of the view, as SimCLR has it (Chen et al. 2020, appendix A)."""
        radius = min(max(1, self.size // 20), self.size - 1)
        return 2 * radius + 1


CROP_TRIES = 10  # torchvision's RandomResizedCrop draws so many boxes before it takes the central one
JITTER_ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # [24, 4]

# Columns of the table of parameters; a box has four, factors and order have one for each of jitter's operations.
BOX, FLIP, JITTER, FACTORS, ORDER, GRAYSCALE, BLUR, SIGMA, SOLARIZE, COLUMNS = 0, 4, 5, 6, 10, 14, 15, 16, 17, 18


def _mask(column: int) -> Any:
    """The images to which an operation is applied, bool [n]."""
    return property(lambda parameters: parameters.table[:, column] > 0)


@dataclass(frozen=True)
class ViewParameters:
    """What is done to each image in one view; ``ops`` explains the terms.

    The columns of ``table`` are all that operations read, so they have what they need on the table's device, and no
    shape depends on a value.
    """

    table: Tensor  # float32 [n, COLUMNS]
    squashed: bool  # boxes end between pixels

    NUMBERS = 2 * CROP_TRIES + 13  # uniform numbers that one image's view takes

    @property
    def boxes(self) -> Tensor:
        """int64 [n, 4], or float32 where images are squashed."""
        boxes = self.table[:, BOX : BOX + 4]
        return boxes if self.squashed else boxes.long()

    flip, jitter, grayscale, blur, solarize = map(_mask, (FLIP, JITTER, GRAYSCALE, BLUR, SOLARIZE))

    @property
    def factors(self) -> Tensor:
        return self.table[:, FACTORS : FACTORS + 4]  # float32 [n, 4]

    @property
    def order(self) -> Tensor:
        return self.table[:, ORDER : ORDER + 4].long()  # int64 [n, 4]

    @property
    def sigma(self) -> Tensor:
        return self.table[:, SIGMA]  # float32 [n]

    def split(self, rows: int) -> Iterator[ViewParameters]:
        """The same parameters, ``rows`` images at a time."""
        return (ViewParameters(table, self.squashed) for table in torch.split(self.table, rows))

    @classmethod
    def sample(
        cls, uniforms: Tensor, height: int, width: int, group: ViewGroup, sizes: Tensor | None = None
    ) -> ViewParameters:
        """Parameters for images of ``height`` × ``width`` from ``uniforms`` [n, NUMBERS] in [0, 1).

        The distributions are those of torchvision's RandomResizedCrop, RandomHorizontalFlip, ColorJitter
        in RandomApply, RandomGrayscale, GaussianBlur in RandomApply, and RandomSolarize.

        sizes: int64 [n, 2], height and width of originals that were squashed to ``height`` × ``width``. Boxes are
        drawn in pixels of the original and then squashed with it, so that a view shows what it would have shown of
        the original.
        """
        crop, rest = uniforms[:, : 2 * CROP_TRIES + 2], uniforms[:, 2 * CROP_TRIES + 2 :]
        flip, jitter, brightness, contrast, saturation, hue, order, gray, blur, sigma, solarize = rest.unbind(1)
        stored = torch.tensor([[height, width]])
        boxes = _sample_boxes(crop, stored if sizes is None else sizes, group.crop_scale, group.crop_ratio)
        columns = (
            flip < group.flip,
            jitter < group.jitter,
            _uniform(brightness, max(0, 1 - group.brightness), 1 + group.brightness),
            _uniform(contrast, max(0, 1 - group.contrast), 1 + group.contrast),
            _uniform(saturation, max(0, 1 - group.saturation), 1 + group.saturation),
            _uniform(hue, -group.hue, group.hue),
            *JITTER_ORDERS[(order * len(JITTER_ORDERS)).long()].unbind(1),
            gray < group.grayscale,
            blur < group.blur,
            _uniform(sigma, *group.blur_sigma),
            solarize < group.solarize,
        )
        table = torch.stack([*(boxes if sizes is None else squash(boxes, sizes, stored)).unbind(1), *columns], dim=1)
        return cls(table.float(), squashed=sizes is not None)


def _uniform(numbers: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * numbers


def _sample_boxes(uniforms: Tensor, sizes: Tensor, scale: tuple[float, float], ratio: tuple[float, float]) -> Tensor:
    """Boxes (top, left, height, width), int64 [n, 4]: the first of CROP_TRIES that fits, else the central one.

    The area is uniform in ``scale``, the logarithm of the aspect ratio uniform, the place uniform. sizes: height and
    width, int64 [n, 2], or [1, 2] where all images have the same.
    """
    area = sizes.prod(1, keepdim=True) * _uniform(uniforms[:, :CROP_TRIES], *scale)
    aspect = _uniform(uniforms[:, CROP_TRIES : 2 * CROP_TRIES], *map(math.log, ratio)).exp()
    sides = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], dim=-1).round().long()  # [n, tries, 2]
    fits = ((sides > 0) & (sides <= sizes[:, None])).all(-1)  # [n, tries]
    first = fits.int().argmax(1)
    box = sides[torch.arange(len(sides)), first]  # [n, 2]
    corner = (uniforms[:, -2:] * (sizes - box + 1)).long()

    central = _central_boxes(sizes, ratio)
    some = fits.any(1, keepdim=True)
    return torch.cat([torch.where(some, corner, (sizes - central) // 2), torch.where(some, box, central)], dim=1)


def _central_boxes(sizes: Tensor, ratio: tuple[float, float]) -> Tensor:
    """The largest (height, width) whose aspect ratio is allowed, of images of ``sizes``; int64, both [n, 2]."""
    low, high = ratio
    height, width = sizes.double().unbind(1)
    limits = torch.stack([(width / low).round(), (height * high).round()], dim=1).clamp(min=1)
    aspect = width / height
    return torch.where(torch.stack([aspect < low, aspect > high], dim=1), limits, sizes).long()


def squash(boxes: Tensor, sizes: Tensor, stored: Tensor) -> Tensor:
    """Boxes (top, left, height, width) of originals of ``sizes`` [n, 2] where those are squashed to ``stored`` [1, 2];
    float32 [n, 4]."""
    return (boxes * (stored.double() / sizes).repeat(1, 2)).float()
