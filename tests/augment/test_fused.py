"""The kernels against ``ops``, to 2/255: on a GPU if there is one, else in Triton's interpreter, which is slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_views import CROP_ONLY, MEAN, STD, STRONG, batch_of, natural, views_of
from torch import Tensor

from ssl_bench.augment import ops
from ssl_bench.augment import views as views_module
from ssl_bench.augment.draws import COLUMNS, JITTER_ORDERS, ORDER, ViewGroup, ViewParameters
from ssl_bench.augment.views import augment
from ssl_bench.batch import Place
from ssl_bench.config.compose import compose
from ssl_bench.config.options import GROUPS

pytest.importorskip("triton")
fused = pytest.importorskip("ssl_bench.augment.fused")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.skipif(
    DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1", reason="neither a GPU nor Triton's interpreter"
)
WILD = replace(STRONG, hue=0.5, jitter=0.9, grayscale=0.3, solarize=0.4)
OPERATIONS = {
    "crop": CROP_ONLY,
    "flip": replace(CROP_ONLY, flip=1.0),
    "jitter": replace(CROP_ONLY, jitter=1.0, brightness=0.8, contrast=0.8, saturation=0.9, hue=0.5),
    "brightness": replace(CROP_ONLY, jitter=1.0, contrast=0.0, saturation=0.0, hue=0.0),
    "contrast": replace(CROP_ONLY, jitter=1.0, brightness=0.0, saturation=0.0, hue=0.0),
    "saturation": replace(CROP_ONLY, jitter=1.0, brightness=0.0, contrast=0.0, hue=0.0),
    "hue": replace(CROP_ONLY, jitter=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.5),
    "grayscale": replace(CROP_ONLY, grayscale=1.0),
    "blur": replace(CROP_ONLY, blur=1.0),
    "solarize": replace(CROP_ONLY, solarize=1.0),
}


def errors_of(images: Tensor, table: Tensor, group: ViewGroup, *, squashed: bool) -> Tensor:
    """Absolute differences between kernels and ``ops`` in 255ths, of one view or several; table: [V · n, COLUMNS]."""
    n, channels = images.shape[:2]
    statistics = [ops.channel_column(numbers[:channels]) for numbers in (MEAN, STD)]
    on_device = [tensor.to(DEVICE) for tensor in (images, table.view(-1, n, COLUMNS), *statistics)]
    drawn = fused.draw(*on_device[:2], group, *on_device[2:], torch.float32)
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in drawn)
    pictures = torch.cat(drawn).cpu() * statistics[1] + statistics[0]
    images = images.repeat(len(drawn), 1, 1, 1)
    return 255 * (pictures - augment(images, ViewParameters(table, squashed), group)).abs()


def errors(images: Tensor, group: ViewGroup, *, views: int = 2, sizes: Tensor | None = None) -> Tensor:
    """The same of views with random parameters."""
    n, (height, width) = len(images), images.shape[2:]
    uniforms = torch.cat([Place(3, 0, view, 0, n).uniform(n, ViewParameters.NUMBERS) for view in range(views)])
    sizes = None if sizes is None else sizes.repeat(views, 1)
    table = ViewParameters.sample(uniforms, height, width, group, sizes).table
    return errors_of(images, table, group, squashed=sizes is not None)


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_each_operation_alone_is_that_of_ops(channels: int) -> None:
    images = natural(len(OPERATIONS), channels, 20, 24)
    rows = []
    for row, group in enumerate(OPERATIONS.values()):
        uniforms = Place(3, 0, 0, row, len(OPERATIONS)).uniform(1, ViewParameters.NUMBERS)
        rows.append(ViewParameters.sample(uniforms, 20, 24, group).table)
    found = errors_of(images, torch.cat(rows), replace(STRONG, size=14), squashed=False).amax((1, 2, 3))
    assert {name: error for name, error in zip(OPERATIONS, found.tolist(), strict=True) if error > 1} == {}


RECIPES = [(3, 70, 30, 21, True), (1, 8, 8, 8, False)]
MORE_RECIPES = [(3, 16, 16, 16, False), (3, 70, 30, 21, False), (1, 9, 33, 40, True), (3, 5, 5, 1, False)]


@pytest.mark.parametrize(
    ("channels", "height", "width", "size", "squashed"),
    [*RECIPES, *(pytest.param(*recipe, marks=pytest.mark.slow) for recipe in MORE_RECIPES)],
)
def test_a_recipe_in_several_tiles_is_that_of_ops(
    channels: int, height: int, width: int, size: int, squashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "TILE", 16)
    sizes = torch.tensor([[30, 90], [300, 40]]) if squashed else None
    found = errors(natural(2, channels, height, width), replace(WILD, size=size), sizes=sizes)
    assert found.max() <= 2
    assert found.mean() <= 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "squashed"), [(1, False), (3, True)])
@pytest.mark.parametrize(
    ("stored", "size"),
    [(32, 32), (64, 64), (96, 96), (256, 224), (48, 224), (28, 28), (75, 50), (256, 32), (1, 1), (7, 1)],
)
def test_recipes_of_all_sizes_are_those_of_ops(
    stored: int, size: int, channels: int, squashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if DEVICE == "cpu":
        monkeypatch.setattr(fused, "TILE", 128)  # the interpreter takes as long for a small tile as for a large one
    n = 4 if max(stored, size) <= 64 else 2
    sizes = torch.tensor([[300, 900], [333, 40]]).repeat(n // 2, 1) if squashed else None
    found = errors(natural(n, channels, stored, stored), replace(WILD, size=size), sizes=sizes)
    assert found.max() <= 2
    assert found.mean() <= 0.2


@pytest.mark.slow
@pytest.mark.parametrize("recipe", GROUPS["augment"])
def test_recipes_of_conf_are_those_of_ops(recipe: str) -> None:
    groups = compose([f"augment={recipe}"]).as_dict()["augment"]["groups"]
    channels = 1 if recipe in ("digits", "fashion_mnist") else 3
    for group in ({**groups["global"], "size": 32}, {**groups["global"], **groups["local"], "size": 16}):
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in group.items()}
        found = errors(natural(3, channels, 40, 40), ViewGroup(**{**values, "count": 2}))
        assert found.max() <= 2
        assert found.mean() <= 0.2


@pytest.mark.slow
def test_every_order_of_jitter_is_followed() -> None:
    n, group = len(JITTER_ORDERS), replace(OPERATIONS["jitter"], size=16)
    table = ViewParameters.sample(Place(0, 0, 0, 0, n).uniform(n, ViewParameters.NUMBERS), 16, 16, group).table
    table[:, ORDER : ORDER + 4] = JITTER_ORDERS.float()
    assert errors_of(natural(n, 3, 16, 16), table, group, squashed=False).max() <= 1


# Where they are used


@pytest.fixture
def with_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_module, "_has_kernels", lambda device: True)


def test_views_of_several_sizes_are_drawn_by_kernels_as_without(with_kernels: None) -> None:
    recipe = [replace(WILD, size=16), replace(WILD, count=1, size=9, blur=0.0)]
    batch = batch_of(natural(2, 3, 16, 20))
    drawn = views_of(recipe).to(DEVICE)(batch.to(DEVICE), draw=1)
    plain = views_of(recipe)
    plain.use_kernels = False
    for ours, theirs in zip(drawn, plain(batch, draw=1), strict=True):
        assert ours.dtype == torch.float32
        assert 255 * min(STD) * (ours.cpu() - theirs).abs().max() <= 2


def test_kernels_draw_in_the_precision_of_autocast(with_kernels: None) -> None:
    views, batch = views_of([replace(WILD, count=1, size=16)]).to(DEVICE), batch_of(natural(2, 3, 16, 16)).to(DEVICE)
    exact = views(batch)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        drawn = views(batch)
    for view, other in zip(drawn, exact, strict=True):
        assert view.dtype == torch.bfloat16
        torch.testing.assert_close(view.float(), other, atol=1e-6, rtol=2**-7)  # the interpreter truncates


def test_kernels_draw_an_image_alike_on_every_number_of_ranks(with_kernels: None) -> None:
    views, images = views_of([replace(WILD, count=1, size=16)]).to(DEVICE), natural(2, 3, 16, 16).to(DEVICE)
    (together,) = views(batch_of(images).to(DEVICE))
    (second,) = views(batch_of(images[1:], Place(7, 0, 3, 1, 2)).to(DEVICE))
    assert torch.equal(together[1:], second)


def test_where_kernels_fail_it_is_shown_once_and_the_plain_path_draws(
    with_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(natural(2, 3, 16, 16))
    plain = views_of([STRONG])
    plain.use_kernels = False
    expected = plain(batch)

    def broken(*_: Any) -> Any:
        raise RuntimeError("at 3:12:\n    x = tl.load(\n          ^\nno C compiler\n")

    monkeypatch.setattr(fused, "draw", broken)
    views = views_of([STRONG])
    with pytest.warns(UserWarning, match=r"plain PyTorch operations.*RuntimeError: no C compiler\)"):
        drawn = views(batch)
    assert all(map(torch.equal, drawn, expected))
    views(batch)  # a second warning would be an error


def test_views_that_do_not_fit_are_no_reason_to_draw_them_by_plain_operations(
    with_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(fused, "draw", full)
    with pytest.raises(torch.OutOfMemoryError):
        views_of([STRONG])(batch_of(natural(2, 3, 16, 16)))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compilers are for Linux")
def test_kernels_compile_for_hopper_and_ampere_without_spilling() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "compiled.py"
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert {(kernel["name"], kernel["capability"]) for kernel in found} == {
        (name, capability) for name in ("_crop", "_color", "_blur") for capability in (80, 90)
    }
    for kernel in found:
        assert kernel["stack"] == kernel["local"] == 0, kernel  # bytes of registers spilled to memory
        assert kernel["shared"] <= 48 * 1024, kernel
