from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from test_views import natural
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from ssl_bench.augment import ops

SIZES = [(8, 8, 16), (28, 28, 28), (32, 32, 32), (96, 96, 96), (64, 64, 224), (40, 24, 32), (96, 80, 20), (1, 1, 4)]


def assert_same_pictures(ours: Tensor, theirs: Tensor) -> None:
    """The requirement is 1/255 mean and 4/255 at most; float32 arithmetic does a hundred times better."""
    assert ours.shape == theirs.shape
    error = (ours - theirs).abs()
    assert error.mean() <= 0.01 / 255
    assert error.max() <= 0.04 / 255


def random_boxes(n: int, height: int, width: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    image = torch.tensor([height, width])
    sides = (torch.rand(n, 2, generator=generator) * image).long() + 1
    corner = (torch.rand(n, 2, generator=generator) * (image - sides + 1)).long()
    return torch.cat([corner, sides], dim=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_resized_crop_is_torchvisions(height: int, width: int, size: int, channels: int) -> None:
    images = natural(12, channels, height, width)
    boxes = random_boxes(len(images), height, width)
    boxes[0] = torch.tensor([0, 0, height, width])
    boxes[1] = torch.tensor([height - 1, width - 1, 1, 1])
    flip = torch.arange(len(images)) % 2 == 1
    ours = ops.resized_crop(images, boxes, size, flip)
    theirs = []
    for image, box, mirrored in zip(images.float() / 255, boxes.tolist(), flip, strict=True):
        theirs.append(reference.resized_crop(image, *box, size=[size, size], antialias=True))
        if mirrored:
            theirs[-1] = reference.horizontal_flip(theirs[-1])
    assert_same_pictures(ours, torch.stack(theirs))
    assert_same_pictures(ops.resized_crop(images.float() / 255, boxes, size, flip), torch.stack(theirs))


def each(images: Tensor, change: Callable[[Tensor, int], Tensor]) -> Tensor:
    return torch.stack([change(image, row) for row, image in enumerate(images)])


@pytest.fixture(params=[(3, 32, 32), (3, 28, 40), (1, 28, 28), (3, 1, 1)], ids=str)
def images(request: pytest.FixtureRequest) -> Tensor:
    """Natural pictures, and the corners of the colour cube, where hue has no or two largest channels."""
    channels, height, width = request.param
    pictures = natural(8, channels, height, width).float() / 255
    corners = torch.tensor(list(itertools.product((0.0, 0.5, 1.0), repeat=3)))[:, :channels, None, None]
    return torch.cat([pictures, corners.expand(-1, -1, height, width)])


def factors(n: int, low: float, high: float) -> Tensor:
    return torch.linspace(low, high, n)[torch.randperm(n, generator=torch.Generator().manual_seed(2))]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("brightness", 0, 2), ("contrast", 0, 2), ("saturation", 0, 2), ("hue", -0.5, 0.5)],
)
def test_adjustments_are_torchvisions(images: Tensor, name: str, low: float, high: float) -> None:
    n, operation = len(images), ["brightness", "contrast", "saturation", "hue"].index(name)
    strengths = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(n, 1)  # which change nothing
    strengths[:, operation] = factors(n, low, high)
    order, everyone = torch.arange(4).repeat(n, 1), torch.ones(n, dtype=torch.bool)
    ours = ops.color_jitter_(images.clone(), strengths, order, everyone)
    theirs = getattr(reference, f"adjust_{name}")
    assert_same_pictures(ours, each(images, lambda image, row: theirs(image, strengths[row, operation].item())))


def jitter_by_torchvision(image: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    adjust = (
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    )
    for operation in order.tolist():
        image = adjust[operation](image, factors[operation].item())
    return image


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_follows_each_images_own_order(channels: int) -> None:
    orders = torch.tensor(list(itertools.permutations(range(4))))
    pictures = natural(2 * len(orders), channels, 32, 32).float() / 255
    order = orders.repeat(2, 1)
    mask = torch.arange(len(pictures)) < len(orders) + 3
    strengths = torch.stack([factors(len(pictures), *r) for r in ((0.2, 1.8), (0.4, 1.6), (0, 2), (-0.5, 0.5))], dim=1)
    theirs = each(
        pictures, lambda image, row: jitter_by_torchvision(image, strengths[row], order[row]) if mask[row] else image
    )
    assert_same_pictures(ops.color_jitter_(pictures, strengths, order, mask), theirs)


def test_masked_operations_are_torchvisions_inside_the_mask_and_nothing_outside(images: Tensor) -> None:
    n, channels, height, width = images.shape
    mask = torch.arange(n) % 3 != 0
    radius = min(4, height - 1, width - 1)
    size = 2 * radius + 1
    sigma = factors(n, 0.1, 2.0)
    pairs = {
        "gray": (
            ops.grayscale_(images.clone(), mask),
            lambda image, row: reference.rgb_to_grayscale(image, num_output_channels=channels),
        ),
        "blur": (
            ops.gaussian_blur_(images.clone(), sigma, mask, size),
            lambda image, row: reference.gaussian_blur(image, [size, size], [sigma[row].item()] * 2),
        ),
        "solarize": (ops.solarize_(images.clone(), 0.6, mask), lambda image, row: reference.solarize(image, 0.6)),
    }
    for ours, theirs in pairs.values():
        assert_same_pictures(ours[mask], each(images, theirs)[mask])
        assert torch.equal(ours[~mask], images[~mask])


def test_normalize_is_torchvisions(images: Tensor) -> None:
    mean, std = [0.2, 0.4, 0.6][: images.shape[1]], [0.5, 0.25, 0.1][: images.shape[1]]
    ours = ops.normalize(images, ops.channel_column(mean), ops.channel_column(std))
    assert_same_pictures(ours, reference.normalize(images, mean, std))


def test_an_empty_mask_changes_nothing(images: Tensor) -> None:
    nobody = torch.zeros(len(images), dtype=torch.bool)
    assert torch.equal(ops.gaussian_blur_(images.clone(), torch.ones(len(images)), nobody, 1), images)
