from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from ssl_bench.augment import ops

SIZES = [(8, 8, 16), (28, 28, 28), (32, 32, 32), (96, 96, 96), (64, 64, 224), (40, 24, 32), (96, 80, 20), (1, 1, 4)]


def natural(n: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth colours with some noise, u8: like photographs, most neighbours are close, some are not."""
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand(n, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(smooth, (height, width), mode="bicubic")
    noise = torch.rand(n, channels, height, width, generator=generator)
    return (smooth * 220 + noise * 60 - 12).clamp(0, 255).to(torch.uint8)


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
