from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.v2 import functional as reference

from emulated import COPY, KINDS, LAUNCH, counting, emulation
from ssl_bench.augment.draws import ViewGroup, ViewParameters
from ssl_bench.augment.views import CleanView, Views, augment
from ssl_bench.batch import Batch, Place
from ssl_bench.errors import UserError

STRONG = ViewGroup(
    count=2,
    size=32,
    crop_scale=(0.2, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    flip=0.5,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grayscale=0.2,
    blur=0.5,
    blur_sigma=(0.1, 2.0),
    solarize=0.2,
    solarize_threshold=0.5,
)
CROP_ONLY = replace(STRONG, flip=0, jitter=0, grayscale=0, blur=0, solarize=0)
MEAN, STD = [0.4, 0.5, 0.6], [0.3, 0.2, 0.25]


def natural(n: int, channels: int, height: int, width: int) -> Tensor:
    """Smooth colours with some noise, uint8: like photographs, most neighbours are close, some are not."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(n, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(smooth, (height, width), mode="bicubic")
    noise = torch.rand(n, channels, height, width, generator=generator)
    return (smooth * 220 + noise * 60 - 12).clamp(0, 255).to(torch.uint8)


def batch_of(images: Tensor, place: Place | None = None) -> Batch:
    n = len(images)
    return Batch(images, torch.zeros(n, dtype=torch.long), torch.arange(n), place or Place(7, 0, 3, 0, n))


def views_of(groups: Sequence[ViewGroup], channels: int = 3, chunk: int = 64) -> Views:
    return Views(groups, MEAN[:channels], STD[:channels], chunk)


def sample(n: int, group: ViewGroup = STRONG, height: int = 32, width: int = 32) -> ViewParameters:
    uniforms = Place(0, 0, 0, 0, n).uniform(n, ViewParameters.NUMBERS)
    return ViewParameters.sample(uniforms, height, width, group)


# Pictures


def by_torchvision(image: Tensor, parameters: ViewParameters, row: int, group: ViewGroup) -> Tensor:
    image = image.float() / 255
    image = reference.resized_crop(image, *parameters.boxes[row].tolist(), size=[group.size] * 2, antialias=True)
    if parameters.flip[row]:
        image = reference.horizontal_flip(image)
    if parameters.jitter[row]:
        names = ("brightness", "contrast", "saturation", "hue")
        for operation in parameters.order[row].tolist():
            adjust = getattr(reference, f"adjust_{names[operation]}")
            image = adjust(image, parameters.factors[row, operation].item())
    if parameters.grayscale[row]:
        image = reference.rgb_to_grayscale(image, num_output_channels=len(image))
    if parameters.blur[row]:
        image = reference.gaussian_blur(image, [group.blur_kernel] * 2, [parameters.sigma[row].item()] * 2)
    return reference.solarize(image, group.solarize_threshold) if parameters.solarize[row] else image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(8, 8, 16), (28, 28, 28), (32, 32, 32), (96, 96, 96), (64, 64, 224), (40, 56, 32), (96, 96, 24), (1, 1, 1)],
)
def test_whole_pipeline_is_torchvisions(height: int, width: int, size: int, channels: int) -> None:
    group = replace(STRONG, size=size, hue=0.5)
    images = natural(24, channels, height, width)
    parameters = sample(len(images), group, height, width)
    ours = augment(images, parameters, group)
    error = torch.stack(
        [(ours[row] - by_torchvision(images[row], parameters, row, group)).abs() for row in range(len(images))]
    )
    assert error.mean((1, 2, 3)).max() <= 0.05 / 255
    assert error.max() <= 0.5 / 255


def test_views_are_the_normalised_pictures_in_group_order() -> None:
    images = natural(5, 3, 32, 32)
    small = replace(STRONG, count=1, size=16, crop_scale=(0.05, 0.2))
    batch = batch_of(images)
    drawn = views_of([STRONG, small])(batch, draw=2)
    for number, (group, view) in enumerate(zip((STRONG, STRONG, small), drawn, strict=True)):
        uniforms = batch.place.uniform(5, ViewParameters.NUMBERS, draw=2, stream=number)
        picture = augment(images, ViewParameters.sample(uniforms, 32, 32, group), group)
        torch.testing.assert_close(view, reference.normalize(picture, MEAN, STD))


def test_recipe_of_probability_zero_is_the_plain_crop() -> None:
    images = natural(6, 3, 48, 40)
    whole = replace(CROP_ONLY, crop_scale=(1.0, 1.0), crop_ratio=(40 / 48, 40 / 48), size=20)
    (view, _) = views_of([whole])(batch_of(images))
    resized = reference.resize(images.float() / 255, [20, 20], antialias=True)
    torch.testing.assert_close(view, reference.normalize(resized, MEAN, STD), atol=1e-5, rtol=0)


def test_probability_one_changes_every_image() -> None:
    always = replace(STRONG, flip=1, jitter=1, grayscale=1, blur=1, solarize=1)
    parameters = sample(500, always)
    for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
        assert getattr(parameters, name).all()
        assert not getattr(sample(500, CROP_ONLY), name).any()
    pictures = augment(natural(500, 3, 32, 32), parameters, always)
    torch.testing.assert_close(pictures[:, 0], pictures[:, 1])


def test_pixels_ignore_the_surrounding_autocast() -> None:
    views, batch = views_of([STRONG]), batch_of(natural(8, 3, 96, 96))
    plain = views(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = views(batch)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


# On an accelerator


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("squashed", [False, True])
def test_an_accelerator_waits_for_nothing_and_gives_the_views_of_the_cpu(channels: int, squashed: bool) -> None:
    recipe = [replace(STRONG, hue=0.5), replace(STRONG, count=3, size=16)]
    batch = batch_of(natural(12, channels, 32, 40))
    if squashed:
        batch.sizes = torch.tensor([[30, 90], [300, 40], [32, 32]] * 4)
    expected = views_of(recipe, channels)(batch, draw=1)
    with emulation() as device:
        views, there = views_of(recipe, channels).to(device), batch.to(device)
        views(there)  # constants are made once
        with counting() as counts:
            drawn = views(there, draw=1)
        assert {kind: counts.of(kind) for kind in KINDS if kind != LAUNCH and counts.of(kind)} == {COPY: 1}
        for view, other in zip(drawn, expected, strict=True):
            assert view.device == device
            torch.testing.assert_close(view.cpu(), other, atol=1e-5, rtol=0)


# What a view depends on

SHAPES = [(1, 8, 8, 16), (3, 32, 32, 32), (1, 28, 28, 28), (3, 15, 17, 13), (3, 96, 96, 96)]


@pytest.mark.parametrize(("channels", "height", "width", "size"), SHAPES)
@pytest.mark.parametrize("ranks", [2, 3, 12])
def test_number_of_ranks_does_not_change_a_bit(channels: int, height: int, width: int, size: int, ranks: int) -> None:
    images = natural(12, channels, height, width)
    views = views_of([replace(STRONG, size=size)], channels)
    together = views(batch_of(images))
    share = len(images) // ranks
    for rank in range(ranks):
        rows = slice(rank * share, (rank + 1) * share)
        place = Place(7, 0, 3, rank * share, len(images))
        for view, part in zip(together, views(batch_of(images[rows], place)), strict=True):
            assert torch.equal(view[rows], part)


@pytest.mark.parametrize(("channels", "height", "width", "size"), SHAPES)
@pytest.mark.parametrize("chunk", [1, 5])
def test_chunking_does_not_change_a_bit(channels: int, height: int, width: int, size: int, chunk: int) -> None:
    batch = batch_of(natural(12, channels, height, width))
    group = replace(STRONG, size=size)
    together = views_of([group], channels)(batch)
    apart = views_of([group], channels, chunk)(batch)
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))


def test_other_images_do_not_matter() -> None:
    images = natural(6, 3, 32, 32)
    changed = images.clone()
    changed[1:] = 255 - changed[1:]
    for view, other in zip(views_of([STRONG])(batch_of(images)), views_of([STRONG])(batch_of(changed)), strict=True):
        assert torch.equal(view[0], other[0])
        assert not torch.equal(view[1], other[1])


def test_every_view_draw_step_epoch_and_seed_draws_anew() -> None:
    images = natural(4, 3, 32, 32)
    views = views_of([STRONG])
    place = Place(7, 0, 3, 0, 4)
    others = [Place(7, 0, 4, 0, 4), Place(7, 1, 3, 0, 4), Place(8, 0, 3, 0, 4)]
    drawn = [*views(batch_of(images, place)), *views(batch_of(images, place), draw=1)]
    drawn += [views(batch_of(images, other))[0] for other in others]
    for row, view in enumerate(drawn):
        for other in drawn[:row]:
            assert all(not torch.equal(a, b) for a, b in zip(view, other, strict=True))
    assert torch.equal(drawn[0], views(batch_of(images, place), draw=0)[0])


# Distributions: p-values of the comparison with torchvision's own draws; seeds are fixed, so no test is flaky

DRAWS = 4000


def same_distribution(ours: Tensor, theirs: Tensor) -> bool:
    """Two samples of numbers, or of rows whose columns are compared one by one."""
    pairs = zip(ours.view(len(ours), -1).unbind(1), theirs.view(len(theirs), -1).unbind(1), strict=True)
    return all(stats.ks_2samp(a.numpy(), b.numpy()).pvalue > 0.001 for a, b in pairs)


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(32, 32, (0.08, 1.0)), (64, 48, (0.2, 1.0)), (20, 90, (0.3, 1.0)), (90, 20, (0.6, 1.0)), (8, 8, (0.01, 0.02))],
)
def test_boxes_are_distributed_as_in_torchvision(height: int, width: int, scale: tuple[float, float]) -> None:
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    ratio = (3 / 4, 4 / 3)
    draw = transforms.RandomResizedCrop.get_params
    theirs = torch.tensor([draw(image, list(scale), list(ratio)) for _ in range(DRAWS)])
    ours = sample(DRAWS, replace(STRONG, crop_scale=scale, crop_ratio=ratio), height, width).boxes
    for view in (lambda box: box, lambda box: box[:, 2] * box[:, 3], lambda box: box[:, 3] / box[:, 2]):
        assert same_distribution(view(ours), view(theirs))
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 2:] >= 1).all()
    assert (ours[:, :2] + ours[:, 2:] <= torch.tensor([height, width])).all()


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10), (32, 32)])
def test_box_that_never_fits_becomes_torchvisions_central_box(height: int, width: int) -> None:
    scale, ratio = (1.0, 1.0), (0.9, 1.1) if height != width else (1.2, 1.3)
    theirs = transforms.RandomResizedCrop.get_params(torch.empty(3, height, width), list(scale), list(ratio))
    ours = sample(50, replace(STRONG, crop_scale=scale, crop_ratio=ratio), height, width).boxes
    assert (ours == torch.tensor(theirs)).all()


@pytest.mark.parametrize("strengths", [(0.4, 0.4, 0.4, 0.1), (1.5, 0.8, 0.2, 0.5)])
def test_jitter_is_distributed_as_in_torchvision(strengths: tuple[float, float, float, float]) -> None:
    torch.manual_seed(0)
    jitter = transforms.ColorJitter(*strengths)
    drawn = [jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(DRAWS)]
    brightness, contrast, saturation, hue = strengths
    ours = sample(DRAWS, replace(STRONG, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue))
    assert same_distribution(ours.factors, torch.tensor([factors for _, *factors in drawn]))

    digits = torch.tensor([64, 16, 4, 1])
    orders, counts = (ours.order * digits).sum(1).unique(return_counts=True)
    assert len(orders) == math.factorial(4)
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


def test_blur_and_probabilities_are_those_asked_for() -> None:
    torch.manual_seed(0)
    ours = sample(DRAWS)
    theirs = torch.tensor([transforms.GaussianBlur.get_params(0.1, 2.0) for _ in range(DRAWS)])
    assert same_distribution(ours.sigma, theirs)
    for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
        hits = int(getattr(ours, name).sum())
        assert stats.binomtest(hits, DRAWS, getattr(STRONG, name)).pvalue > 0.001, name


def test_parameters_are_independent_of_each_other() -> None:
    drawn = sample(DRAWS)
    columns = [drawn.boxes, drawn.flip, drawn.jitter, drawn.factors, drawn.order[:, :1], drawn.grayscale]
    columns += [drawn.blur, drawn.sigma, drawn.solarize]
    table = torch.cat([column.double().view(DRAWS, -1) for column in columns], dim=1)
    correlation = torch.corrcoef(table.T) - torch.eye(table.shape[1])
    correlation[:4, :4] = 0  # a large box leaves little room to move
    assert correlation.abs().max() < 4.5 / math.sqrt(DRAWS)


# Shapes, sizes and mistakes


@pytest.mark.parametrize(("size", "kernel"), [(1, 1), (16, 3), (32, 3), (64, 7), (96, 9), (224, 23)])
def test_the_kernel_of_the_blur_is_odd_and_a_tenth_of_the_view(size: int, kernel: int) -> None:
    assert replace(STRONG, size=size).blur_kernel == kernel


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 1, 1), (1, 3, 5, 9), (3, 3, 33, 2)])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_odd_images_give_finite_views_in_range(shape: tuple[int, int, int, int], size: int) -> None:
    always = replace(STRONG, size=size, flip=1, jitter=1, grayscale=1, blur=1, solarize=1)
    channels = shape[1]
    for group in (always, replace(CROP_ONLY, size=size)):
        for view in Views([group], [0.0] * channels, [1.0] * channels, 100)(batch_of(natural(*shape))):
            assert view.shape == (shape[0], channels, size, size)
            assert view.min() >= -1e-6
            assert view.max() <= 1 + 1e-6


def test_full_size_counts_the_leading_views_of_the_largest_size() -> None:
    local = replace(STRONG, count=6, size=16)
    assert (views_of([STRONG, local]).count, views_of([STRONG, local]).full_size) == (8, 2)
    one = replace(STRONG, count=1)
    assert views_of([one, replace(one, solarize=0.0)]).full_size == 2
    with pytest.raises(UserError, match="largest views first"):
        views_of([local, STRONG])
    with pytest.raises(UserError, match="largest views first"):
        views_of([one, local, one])


@pytest.mark.parametrize(
    "mistake",
    [
        {"count": 0},
        {"size": 0},
        {"crop_scale": (0.5, 0.2)},
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 1.1)},
        {"crop_ratio": (1.3, 0.7)},
        {"flip": 1.2},
        {"jitter": -0.1},
        {"brightness": -1.0},
        {"hue": 0.6},
        {"hue": math.nan},
        {"blur_sigma": (0.0, 1.0)},
        {"solarize_threshold": 128},
    ],
    ids=str,
)
def test_impossible_recipe_is_refused_by_name(mistake: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(mistake))} is .*set it to"):
        replace(STRONG, **mistake)  # type: ignore[arg-type]


def test_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(UserError, match="1 channels but the mean has 3"):
        views_of([STRONG])(batch_of(natural(2, 1, 8, 8)))


def test_views_have_no_state_to_save() -> None:
    assert not views_of([STRONG]).state_dict()
    assert not CleanView(32, 1.0, MEAN, STD).state_dict()


# The clean view


@pytest.mark.parametrize(
    ("height", "width", "size", "crop"),
    [(32, 32, 32, 1.0), (96, 96, 32, 1.0), (64, 80, 56, 0.875), (30, 20, 28, 0.9), (48, 48, 32, 0.9)],
)
def test_clean_view_is_resize_and_centre_crop(height: int, width: int, size: int, crop: float) -> None:
    images = natural(3, 3, height, width)
    theirs = reference.resize(images.float() / 255, [round(size / crop)], antialias=True)
    theirs = reference.normalize(reference.center_crop(theirs, [size, size]), MEAN, STD)
    clean = CleanView(size, crop, MEAN, STD)
    torch.testing.assert_close(clean(images), theirs)
    assert torch.equal(clean(images), clean(images.float() / 255))
