"""Views of squashed pictures show what views of the originals would have shown.

Errors below are mean absolute differences in 255ths between a view of the picture squashed to 256 × 256 and the same
view of the original by torchvision. On smooth pictures they are at most 0.3, and twenty times that or more if the
region moves by six pixels. On photographs of 640 × 427 and parts of them, random crops at 96 pixels differ by 1.9 on
average (5.5 at most, roof tiles) and by 0.8 (1.6, a flower), the clean view at 224 by 4.1: detail that 256 × 256 pixels
do not hold.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_views import CROP_ONLY, MEAN, STD, STRONG, batch_of, natural, sample, views_of
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from ssl_bench.augment import ops
from ssl_bench.augment.draws import ViewGroup, ViewParameters
from ssl_bench.augment.views import CleanView
from ssl_bench.batch import Batch, Place
from ssl_bench.data.readers.pictures import Listing, decode_all

STORED = 256
SHAPES = [(375, 500), (500, 375), (300, 300), (200, 900), (900, 200), (427, 640), (120, 90)]


def smooth(height: int, width: int) -> Image.Image:
    """A picture without fine detail."""
    noise = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
    return Image.fromarray((255 * wide[0]).round().byte().permute(1, 2, 0).numpy())


def photograph(name: str) -> Image.Image:
    datasets = pytest.importorskip("sklearn.datasets")
    return Image.fromarray(datasets.load_sample_image(name))


def stored(images: list[Image.Image], kind: str = "BMP") -> tuple[Tensor, Tensor]:
    """The pictures as readers keep them, and their sizes."""
    files = {}
    for number, image in enumerate(images):
        file = BytesIO()
        image.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
        files[str(number)] = file.getvalue()
    listing = Listing(Path(), list(files), torch.zeros(len(files)), files.__getitem__)
    found = decode_all(listing, side=STORED, skip=False, max_pixels=10**9)
    assert found.sizes is not None
    return found.images, found.sizes


def originals(images: list[Image.Image]) -> list[Tensor]:
    return [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 for image in images]


def crop_errors(image: Image.Image, group: ViewGroup, crops: int, shift: int = 0) -> Tensor:
    """Mean absolute error of each crop, in 255ths, against cropping the original."""
    pixels, sizes = stored([image])
    uniforms = Place(0, 0, 0, 0, crops).uniform(crops, ViewParameters.NUMBERS)
    boxes = ViewParameters.sample(uniforms, STORED, STORED, group, sizes.expand(crops, 2)).boxes
    ours = ops.resized_crop(pixels.expand(crops, -1, -1, -1), boxes, group.size)
    (original,) = originals([image])
    height, width = original.shape[1:]
    drawn = ViewParameters.sample(uniforms, height, width, group).boxes
    drawn[:, 0] += shift
    crop = {"size": [group.size] * 2, "antialias": True}
    theirs = [reference.resized_crop(original, *box, **crop) for box in drawn.tolist()]
    return 255 * (ours - torch.stack(theirs)).abs().mean((1, 2, 3))


@pytest.mark.parametrize(("shape", "size"), [*((shape, 64) for shape in SHAPES), ((375, 500), 224)], ids=str)
def test_a_crop_shows_the_region_of_the_original(shape: tuple[int, int], size: int) -> None:
    group = replace(CROP_ONLY, size=size, crop_scale=(0.08, 1.0))
    errors = crop_errors(smooth(*shape), group, 6)
    assert errors.max() <= 0.5, errors
    assert crop_errors(smooth(*shape), group, 6, shift=6).mean() > 10 * errors.mean()


@pytest.mark.parametrize(("name", "mean", "highest"), [("china.jpg", 2.5, 7.0), ("flower.jpg", 1.2, 2.5)])
def test_a_crop_of_a_photograph_shows_its_region(name: str, mean: float, highest: float) -> None:
    image = photograph(name)
    shapes = [image, image.rotate(90, expand=True), image.crop((0, 0, 640, 160)), image.crop((100, 0, 250, 427))]
    group = replace(CROP_ONLY, size=96, crop_scale=(0.2, 1.0))
    errors = torch.cat([crop_errors(shape, group, 4) for shape in shapes])
    assert errors.mean() <= mean, errors
    assert errors.max() <= highest, errors


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("size", "crop"), [(64, 1.0), (224, 0.875), (32, 0.9)])
def test_the_clean_view_shows_the_centre_of_the_original(shape: tuple[int, int], size: int, crop: float) -> None:
    image = smooth(*shape)
    theirs = reference.resize(originals([image])[0], [round(size / crop)], antialias=True)
    theirs = reference.center_crop(theirs, [size, size])
    clean = CleanView(size, crop, [0.0] * 3, [1.0] * 3)
    pixels, sizes = stored([image])
    assert 255 * (clean(pixels, sizes)[0] - theirs).abs().mean() <= 0.5
    # and nearly what an encoder makes of the picture itself, which has its true shape
    assert 255 * (clean(pixels, sizes) - clean(originals([image])[0][None])).abs().mean() <= 0.5
    torch.testing.assert_close(clean(pixels, sizes), clean(pixels.float() / 255, sizes))
    if shape[0] != shape[1]:
        assert 255 * (clean(pixels)[0] - theirs).abs().mean() > 1  # squashed


def test_a_photograph_evaluated_from_its_squashed_form_is_near_the_original() -> None:
    image = photograph("china.jpg")
    pixels, sizes = stored([image], "JPEG")
    clean = CleanView(224, 0.875, [0.0] * 3, [1.0] * 3)
    error = 255 * (clean(pixels, sizes) - clean(originals([image])[0][None])).abs().mean()
    assert error <= 5


def test_a_circle_stays_round() -> None:
    axis = torch.arange(400)
    disc = ((axis[:200, None] - 99.5) ** 2 + (axis - 199.5) ** 2 < 60**2).float()
    image = Image.fromarray((255 * disc).byte().numpy()).convert("RGB")
    pixels, sizes = stored([image])
    view = CleanView(100, 1.0, [0.0] * 3, [1.0] * 3)(pixels, sizes)[0, 0] > 0.5
    assert int(view.any(0).sum()) == int(view.any(1).sum()) == 60
    whole = replace(CROP_ONLY, size=100, crop_scale=(0.5, 0.5), crop_ratio=(1.0, 1.0))  # 200 × 200 of 200 × 400
    uniforms = torch.full((1, ViewParameters.NUMBERS), 0.5, dtype=torch.float64)
    parameters = ViewParameters.sample(uniforms, STORED, STORED, whole, sizes)
    crop = ops.resized_crop(pixels, parameters.boxes, 100)[0, 0] > 0.5
    assert int(crop.any(0).sum()) == int(crop.any(1).sum()) == 60


def test_boxes_are_those_of_each_original_alone() -> None:
    sizes = torch.tensor([[1, 1], [1, 700], [900, 2], [375, 500], [20_000, 3], [30, 40], [64, 64]] * 40)
    group = replace(STRONG, crop_scale=(0.08, 1.0))
    uniforms = Place(0, 0, 0, 0, len(sizes)).uniform(len(sizes), ViewParameters.NUMBERS)
    together = ViewParameters.sample(uniforms, STORED, STORED, group, sizes)
    for row, (height, width) in enumerate(sizes.tolist()):
        alone = ViewParameters.sample(uniforms[row : row + 1], height, width, group)
        factors = torch.tensor([STORED / height, STORED / width] * 2)
        torch.testing.assert_close(together.boxes[row], alone.boxes[0] * factors)
        assert torch.equal(together.factors[row], alone.factors[0])
        assert bool(together.flip[row]) == bool(alone.flip[0])
    assert together.boxes.dtype == torch.float32


def test_originals_of_the_stored_size_give_the_views_of_images_without_sizes() -> None:
    images = natural(8, 3, 32, 32)
    plain = batch_of(images)
    sized = replace(plain, sizes=torch.tensor([[32, 32]] * 8))
    for mine, other in zip(views_of([STRONG])(sized), views_of([STRONG])(plain), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)
    clean = CleanView(28, 0.875, MEAN, STD)
    torch.testing.assert_close(clean(images, sized.sizes), clean(images), atol=1e-5, rtol=0)


def test_views_of_a_batch_with_sizes_are_of_the_originals() -> None:
    images, sizes = natural(6, 3, 32, 32), torch.tensor([[30, 90], [300, 40], [32, 32]] * 2)
    batch = replace(batch_of(images), sizes=sizes)
    for number, view in enumerate(views_of([CROP_ONLY])(batch)):
        uniforms = batch.place.uniform(6, ViewParameters.NUMBERS, stream=number)
        boxes = ViewParameters.sample(uniforms, 32, 32, CROP_ONLY, sizes).boxes
        picture = ops.resized_crop(images, boxes, CROP_ONLY.size)
        torch.testing.assert_close(view, reference.normalize(picture, MEAN, STD))


@pytest.mark.parametrize("cut_first", [True, False])
def test_whole_boxes_written_as_fractions_are_whole_boxes(cut_first: bool) -> None:
    images, boxes = natural(40, 3, 40, 56), sample(40, STRONG, 40, 56).boxes
    whole = ops.resized_crop(images, boxes, 24, cut_first=cut_first)
    assert torch.equal(ops.resized_crop(images, boxes.float(), 24, cut_first=cut_first), whole)


def test_a_pixel_that_a_box_covers_in_part_counts_by_that_part() -> None:
    row = torch.tensor([0.0, 100.0, 200.0, 50.0]).expand(1, 1, 4, 4)
    # from 0.75 to 2.75: a quarter of the first pixel, all of the second, three quarters of the third
    box = torch.tensor([[0.0, 0.75, 4.0, 2.0]])
    centre = 0.75 + 1
    tent = torch.tensor([1 - abs(p + 0.5 - centre) / 2 for p in range(3)]) * torch.tensor([0.25, 1.0, 0.75])
    expected = (tent * torch.tensor([0.0, 100.0, 200.0])).sum() / tent.sum()
    torch.testing.assert_close(ops.resized_crop(row, box, 1)[0, 0, 0, 0], expected)


def test_the_smallest_boxes_anywhere_give_finite_pictures_within_the_range_of_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2000, 1, 16, 16, generator=generator)
    length = 16 * torch.rand(2000, 2, generator=generator).pow(6).clamp(min=1e-4)
    start = (16 - length) * torch.rand(2000, 2, generator=generator)
    start[::3] = start[::3].round().clamp(max=15)
    length = torch.minimum(length, 16 - start)
    for cut_first in (True, False):
        view = ops.resized_crop(images, torch.cat([start, length], 1), 7, cut_first=cut_first)
        assert view.isfinite().all()
        assert (view.amax((1, 2, 3)) <= images.amax((1, 2, 3)) + 1e-5).all()
        assert (view.amin((1, 2, 3)) >= images.amin((1, 2, 3)) - 1e-5).all()


def test_sizes_stay_on_the_cpu_with_the_place() -> None:
    batch = replace(batch_of(natural(2, 3, 4, 4)), sizes=torch.tensor([[4, 4]] * 2))
    moved: Batch = batch.to("meta")
    assert moved.images.device.type == "meta"
    assert moved.sizes is batch.sizes
