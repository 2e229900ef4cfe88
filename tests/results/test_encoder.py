"""What people do with an encoder once it is trained."""

from __future__ import annotations

import copy
import itertools
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ssl_bench
from ssl_bench.nn.backbone import build_backbone
from ssl_bench.results.encoder import Encoder, save_encoder

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.2, 0.3]


@pytest.fixture(params=[1.0, 0.875], ids=["whole", "cropped"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> Encoder:
    torch.manual_seed(0)
    network = {"name": "resnet18", "stem": "small", "width": 4, "channels": 3}
    clean = {"size": 16, "crop": request.param, "mean": MEAN, "std": STD}
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, build_backbone(**network)[0], {"backbone": network, "clean": clean})
    loaded = ssl_bench.load_encoder(path)
    assert isinstance(loaded, Encoder)
    return loaded


def images(*sides: int) -> Tensor:
    return torch.rand(3, 3, *sides, generator=torch.Generator().manual_seed(1))


def test_saliency_is_the_gradient_by_the_input(encoder: Encoder) -> None:
    seen = images(20, 28).double().requires_grad_()
    encoder.double().requires_grad_(False)
    encoder(seen)[0, 0].backward()
    assert seen.grad is not None
    assert not seen.grad[1:].any(), "one image's feature depends on another image"
    # The clean view computes in float32: a change of a hundredth is far above its rounding.
    row, column = divmod(int(seen.grad[0, 0].abs().argmax()), 28)
    step = torch.zeros_like(seen)
    step[0, 0, row, column] = 0.005
    slope = (encoder(seen.detach() + step) - encoder(seen.detach() - step))[0, 0] / 0.01
    assert slope.item() == pytest.approx(seen.grad[0, 0, row, column].item(), rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_another_type_give_features_of_that_type(encoder: Encoder, dtype: torch.dtype) -> None:
    expected = encoder(images(20, 28))
    found = copy.deepcopy(encoder).to(dtype)(images(20, 28).to(dtype))
    assert found.dtype == dtype
    tolerance = 0.1 if dtype != torch.float64 else 1e-4
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


SHAPES = [(20, 28), (28, 20), (16, 16), (16, 40), (9, 9), (64, 33)]


def test_an_export_holds_for_images_of_all_sizes(encoder: Encoder) -> None:
    example = (20, 28) if encoder.clean.resized > encoder.clean.size else (16, 16)  # which need no resizing
    free = {
        0: torch.export.Dim("n"),
        2: torch.export.Dim("h", min=4, max=512),
        3: torch.export.Dim("w", min=4, max=512),
    }
    exported = torch.export.export(encoder, (images(*example),), dynamic_shapes={"images": free}).module()
    for shape in SHAPES:
        seen = images(*shape)[:2]
        torch.testing.assert_close(exported(seen), encoder(seen), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("example", [(20, 28), (16, 16)], ids=str)
def test_a_trace_holds_for_images_of_all_sizes(encoder: Encoder, example: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # of sides of feature maps, which are fixed
        traced = torch.jit.trace(encoder, images(*example))
    for shape in SHAPES:
        seen = images(*shape)
        torch.testing.assert_close(traced(seen), encoder(seen), rtol=1e-4, atol=1e-4)


def test_floats_that_are_not_0_to_1_are_warned_of(encoder: Encoder) -> None:
    seen = images(20, 28)
    for wrong in (seen * 255, (seen - 0.45) / 0.2):
        with pytest.warns(UserWarning, match="floats of 0–1 or uint8 of 0–255, but these are floats from"):
            encoder(wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for right in (seen, (seen * 255).byte(), seen[:0], seen * 1.1 - 0.05):
            encoder(right)


def test_the_two_ways_to_a_clean_view_agree(encoder: Encoder) -> None:
    """Every image size but those of the examples, in eager mode against the matrices of a graph."""
    for height, width in itertools.product((15, 16, 17, 31), (16, 18, 33)):
        seen = images(height, width)
        sizes = torch.tensor([[height, width]] * len(seen))
        torch.testing.assert_close(encoder.clean(seen, sizes), encoder.clean(seen), rtol=1e-4, atol=1e-4)
