"""A recipe of views: what is drawn for each image, and the pictures drawn with it.

Numbers → parameters → operations: ``Place.uniform`` gives each image of the global batch its
numbers, ``ViewParameters.sample`` turns them into parameters with torchvision's distributions, and
``ops`` applies them.

Shapes: n images of this rank, C channels (1 or 3), H × W pixels, S × S pixels of a view.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.augment import ops
from ssl_bench.batch import Batch
from ssl_bench.errors import UserError


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
        for name in ("count", "size"):
            self._require(name, "at least 1", getattr(self, name) >= 1)
        for name in ("flip", "jitter", "grayscale", "blur", "solarize", "solarize_threshold"):
            self._require(name, "between 0 and 1", 0 <= getattr(self, name) <= 1)
        for name in ("brightness", "contrast", "saturation"):
            self._require(name, "0 or more", getattr(self, name) >= 0)
        self._require("hue", "between 0 and 0.5", 0 <= self.hue <= 0.5)
        for name, highest in (("crop_scale", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
            pair = getattr(self, name)
            rule = "a range (low, high) with 0 < low ≤ high" + (" ≤ 1" if highest == 1 else "")
            self._require(name, rule, len(pair) == 2 and 0 < pair[0] <= pair[1] <= highest)

    def _require(self, name: str, rule: str, holds: bool) -> None:
        if not holds:
            raise UserError(f"The view group's {name} is {getattr(self, name)}; set it to {rule}.")

    @property
    def blur_kernel(self) -> int:
        """Kernel size in pixels: a tenth of the view, as SimCLR has it (Chen et al. 2020, appendix A)."""
        radius = min(max(1, self.size // 20), self.size - 1)
        return 2 * radius + 1


CROP_TRIES = 10  # torchvision's RandomResizedCrop draws so many boxes before it takes the central one
JITTER_ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # [24, 4]


@dataclass(frozen=True)
class ViewParameters:
    """What is done to each image in one view; ``ops`` explains the terms."""

    boxes: Tensor  # int64 [n, 4], or float32 where images are squashed
    flip: Tensor  # bool [n]
    jitter: Tensor  # bool [n]
    factors: Tensor  # float32 [n, 4]
    order: Tensor  # int64 [n, 4]
    grayscale: Tensor  # bool [n]
    blur: Tensor  # bool [n]
    sigma: Tensor  # float32 [n]
    solarize: Tensor  # bool [n]

    NUMBERS = 2 * CROP_TRIES + 13  # uniform numbers that one image's view takes

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
        factors = (
            _uniform(brightness, max(0, 1 - group.brightness), 1 + group.brightness),
            _uniform(contrast, max(0, 1 - group.contrast), 1 + group.contrast),
            _uniform(saturation, max(0, 1 - group.saturation), 1 + group.saturation),
            _uniform(hue, -group.hue, group.hue),
        )
        stored = torch.tensor([[height, width]])
        boxes = _sample_boxes(crop, stored if sizes is None else sizes, group.crop_scale, group.crop_ratio)
        return cls(
            boxes=boxes if sizes is None else _squashed(boxes, sizes, stored),
            flip=flip < group.flip,
            jitter=jitter < group.jitter,
            factors=torch.stack(factors, dim=1).float(),
            order=JITTER_ORDERS[(order * len(JITTER_ORDERS)).long()],
            grayscale=gray < group.grayscale,
            blur=blur < group.blur,
            sigma=_uniform(sigma, *group.blur_sigma).float(),
            solarize=solarize < group.solarize,
        )

    def split(self, rows: int) -> Iterator[ViewParameters]:
        """The same parameters, ``rows`` images at a time."""
        columns = (getattr(self, field.name).split(rows) for field in fields(self))
        return itertools.starmap(ViewParameters, zip(*columns, strict=True))


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


def _squashed(boxes: Tensor, sizes: Tensor, stored: Tensor) -> Tensor:
    """Boxes (top, left, height, width) of originals of ``sizes`` [n, 2] where those are squashed to ``stored`` [1, 2];
    float32 [n, 4]."""
    return (boxes * (stored.double() / sizes).repeat(1, 2)).float()


class Views(nn.Module):
    """u8 images → normalised float views.

    An image's views are a function of its place in the run alone: the same on 1, 2 or 3 ranks, however many
    are drawn at a time, and whatever the other images are.

    Args:
        groups: in the order of the views; the largest views come first, because methods with
            crops of several sizes take them as targets.
        mean, std: of the dataset's channels, in [0, 1].
        chunk: images that are drawn at a time, to stay in the CPU's cache (about 256 at 32 px, 32 at
            96 px); an accelerator draws the whole batch at once.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, groups: Sequence[ViewGroup], mean: Sequence[float], std: Sequence[float], chunk: int) -> None:
        super().__init__()
        self.groups = [group for group in groups for _ in range(group.count)]  # one per view
        if not self.groups:
            raise UserError("The augmentation recipe has no view groups; give it at least one.")
        sizes = [group.size for group in self.groups]
        if max(sizes[self.full_size :], default=0) == sizes[0] or sizes[0] < max(sizes):
            raise UserError(f"The view groups' sizes are {sizes}; put the largest views first.")
        if chunk < 1:
            raise UserError(f"The augmentation's chunk is {chunk}; set it to at least 1 image.")
        self.chunk = chunk
        self.register_buffer("mean", ops.channel_column(mean), persistent=False)
        self.register_buffer("std", ops.channel_column(std), persistent=False)

    @property
    def count(self) -> int:
        """Number of views."""
        return len(self.groups)

    @property
    def full_size(self) -> int:
        """Number of views of the largest size; they are the first ones."""
        return sum(1 for _ in itertools.takewhile(lambda group: group.size == self.groups[0].size, self.groups))

    @torch.no_grad()
    def forward(self, batch: Batch, draw: int = 0) -> list[Tensor]:
        """One float32 ``[n, C, S, S]`` per view; ``draw`` counts how often the batch is looked at again.

        Raises:
            UserError: the images' channels are not those of ``mean`` and ``std``.
        """
        channels, height, width = batch.images.shape[1:]
        if channels != len(self.mean):
            raise UserError(
                f"The images have {channels} channels but the mean has {len(self.mean)}; give one number per channel."
            )
        views = []
        for number, group in enumerate(self.groups):
            uniforms = batch.place.uniform(len(batch), ViewParameters.NUMBERS, draw=draw, stream=number)
            parameters = ViewParameters.sample(uniforms, height, width, group, batch.sizes)
            views.append(self._draw(batch.images, parameters, group))
        return views

    def _draw(self, images: Tensor, parameters: ViewParameters, group: ViewGroup) -> Tensor:
        n, channels = images.shape[:2]
        view = torch.empty(n, channels, group.size, group.size, device=images.device)
        chunk = self.chunk if images.device.type == "cpu" else n
        with torch.autocast(images.device.type, enabled=False):
            for start, chosen in zip(range(0, n, chunk), parameters.split(chunk), strict=True):
                rows = slice(start, start + chunk)
                ops.normalize(augment(images[rows], chosen, group), self.mean, self.std, out=view[rows])
        return view


def augment(images: Tensor, parameters: ViewParameters, group: ViewGroup) -> Tensor:
    """One view at given parameters: u8 [n, C, H, W] → float in [0, 1] [n, C, S, S]."""
    images = ops.resized_crop(images, parameters.boxes, group.size, parameters.flip)
    ops.color_jitter_(images, parameters.factors, parameters.order, parameters.jitter)
    ops.grayscale_(images, parameters.grayscale)
    ops.gaussian_blur_(images, parameters.sigma, parameters.blur, group.blur_kernel)
    return ops.solarize_(images, group.solarize_threshold, parameters.solarize)


def in_graph() -> bool:
    """Whether torch.jit.trace, torch.export or torch.compile makes a graph of what is called."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


class CleanView(nn.Module):
    """Images as evaluation sees them: the shorter side resized to ``size / crop``, the centre cut out, normalised.

    Args:
        size: S, of the network's input.
        crop: share of the resized shorter side that is kept, in (0, 1]; 1 keeps all of it.
        mean, std: of the dataset's channels, in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, crop: float, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if size < 1:
            raise UserError(f"The clean view's size is {size}; set it to at least 1.")
        if not 0 < crop <= 1:
            raise UserError(f"The clean view's crop is {crop}; set it above 0 and at most 1.")
        self.size = size
        self.resized = round(size / crop)
        self.register_buffer("mean", ops.channel_column(mean), persistent=False)
        self.register_buffer("std", ops.channel_column(std), persistent=False)

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """u8, or float in [0, 1], [n, C, H, W] → float32 [n, C, S, S]; u8 gives the same as u8 / 255.

        sizes: int64 [n, 2], height and width of originals that were squashed to H × W; the view is then theirs, with
        nothing squashed in it.
        """
        images = images / 255 if images.dtype == torch.uint8 else images.float()
        if sizes is None and in_graph():
            # Sides as data, by which nothing branches: the graph is then right for images of other sizes, too.
            sides = [torch.ones(side, dtype=torch.int64, device=images.device).sum() for side in images.shape[-2:]]
            stored = torch.stack(sides)[None]  # [1, 2]
            sizes = stored.expand(images.shape[0], 2)
        elif sizes is not None:
            stored = torch.tensor([images.shape[-2:]])
        if sizes is not None:
            boxes = self._boxes(sizes, stored)
            return ops.normalize(ops.resized_crop(images, boxes, self.size, cut_first=False), self.mean, self.std)
        height, width = images.shape[-2:]
        short = min(height, width)
        if short != self.resized:
            shape = [self.resized * height // short, self.resized * width // short]
            images = F.interpolate(images, shape, mode="bilinear", antialias=True)
        top, left = (round((side - self.size) / 2) for side in images.shape[-2:])
        return ops.normalize(images[..., top : top + self.size, left : left + self.size], self.mean, self.std)

    def _boxes(self, sizes: Tensor, stored: Tensor) -> Tensor:
        """What is cut out of originals of ``sizes`` [n, 2], squashed to ``stored`` [1, 2]; float32 [n, 4]."""
        resized = self.resized * sizes // sizes.amin(1, keepdim=True)  # as originals would be
        corner = ((resized - self.size).double() / 2).round()
        return _squashed(torch.cat([corner, torch.full_like(corner, self.size)], dim=1), resized, stored)
