"""Our ResNets are torchvision's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from ssl_bench.errors import UserError
from ssl_bench.nn.backbone import StridedConv, build_backbone, require_size
from ssl_bench.nn.heads import mlp


@pytest.mark.parametrize("name", ["resnet10", "resnet18", "resnet34", "resnet50"])
def test_imagenet_stem_at_width_64_is_torchvisions_network(name: str) -> None:
    ours, width = build_backbone(name, stem="imagenet", width=64, channels=3)
    made = {"resnet10": lambda: ResNet(BasicBlock, [1, 1, 1, 1])}  # which torchvision has no name for
    theirs = made.get(name, lambda: torchvision.models.get_model(name, weights=None))()
    weights = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    ours.load_state_dict(weights, strict=True)
    theirs.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.eval()(images)
        assert torch.equal(ours.eval()(images), expected)
    assert expected.shape[1] == width


def test_initial_weights_have_torchvisions_scale() -> None:
    torch.manual_seed(0)
    ours, _ = build_backbone("resnet18", stem="imagenet", width=64, channels=3)
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=False):
        if mine.ndim == 4:
            assert mine.std().item() == pytest.approx(other.std().item(), rel=0.05), name
        else:
            assert torch.equal(mine, other), name


@pytest.mark.parametrize(("stem", "side"), [("cifar", 32), ("small", 16), ("imagenet", 8)])
def test_stems_reduce_a_32_pixel_image_as_named(stem: str, side: int) -> None:
    network, _ = build_backbone("resnet18", stem=stem, width=8, channels=3)
    sides: list[int] = []
    network.layer1.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))  # type: ignore[union-attr]
    network(torch.randn(2, 3, 32, 32))
    assert sides == [side]


@pytest.mark.parametrize(("name", "expansion"), [("resnet18", 1), ("resnet50", 4)])
def test_width_scales_every_stage_and_gray_images_keep_one_channel(name: str, expansion: int) -> None:
    network, width = build_backbone(name, stem="small", width=16, channels=1)
    assert width == 128 * expansion
    assert network(torch.randn(2, 1, 28, 28)).shape == (2, width)
    assert network.conv1.weight.shape[1] == 1  # type: ignore[union-attr, index]
    narrow = sum(p.numel() for p in network.parameters())
    full = sum(p.numel() for p in build_backbone(name, stem="small", width=64, channels=1)[0].parameters())
    assert full / narrow == pytest.approx(16, rel=0.05)


def test_timm_models_come_by_name() -> None:
    pytest.importorskip("timm")
    network, width = build_backbone("timm/resnet10t", stem="cifar", width=64, channels=1)
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, width)


@pytest.mark.parametrize(("name", "hint"), [("resnet19", "resnet18"), ("timm/resnet10x", "timm has no model")])
def test_unknown_backbones_are_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        build_backbone(name, stem="cifar", width=64, channels=3)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_an_mlp_has_norm_and_relu_between_its_linear_layers_and_a_plain_end(layers: int) -> None:
    head = mlp(6, 5, 4, layers, output_norm=False)
    kinds = [type(module).__name__ for module in head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * (layers - 1) + ["Linear"]
    assert head(torch.randn(3, 6)).shape == (3, 4)
    assert head[-1].bias is not None


def test_an_mlp_without_layers_is_the_identity() -> None:
    x = torch.randn(3, 6)
    assert torch.equal(mlp(6, 5, 4, 0, output_norm=False)(x), x)


def test_a_network_of_one_size_says_so() -> None:
    network, _ = build_backbone("timm/vit_tiny_patch16_224", stem="small", width=8, channels=1)
    require_size(network, "vit", 1, 224)
    assert network.training
    with pytest.raises(UserError, match=r"vit takes no images of 16 pixels \(.*224.*\): set another size"):
        require_size(network, "vit", 1, 16)
    assert network.training


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet18"])
def test_weight_gradients_over_a_single_pixel_are_right_in_bfloat16(name: str) -> None:
    torch.manual_seed(0)
    network: Any = build_backbone(name, stem="small", width=16, channels=1)[0]
    conv = network.layer4[0].conv1
    images = torch.randn(32, conv.in_channels, 1, 1)

    def gradient(mixed: bool) -> Tensor:
        conv.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            out = conv(images)
        out.float().square().sum().backward()
        found: Tensor = conv.weight.grad
        return found.clone()

    expected = gradient(False)
    for _ in range(20):  # what a wrong kernel leaves unwritten holds whatever was there before
        del [torch.full((1 << 18,), 1e30) for _ in range(4)][:]
        torch.testing.assert_close(gradient(True), expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize("channels", [2, 4, 8])
def test_weight_gradients_of_strided_kernels_of_one_pixel_are_right(channels: int) -> None:
    convolution = StridedConv(channels, 2 * channels, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
    images = torch.rand(16, channels, 32, 32).contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(convolution(images).square().sum(), convolution.weight)
    read, weight = images[:, :, ::2, ::2].double(), convolution.weight.double().flatten(1)
    outputs = torch.einsum("oi,niyx->noyx", weight, read)
    torch.testing.assert_close(
        gradient.double().flatten(1), 2 * torch.einsum("noyx,niyx->oi", outputs, read), rtol=1e-4, atol=1e-3
    )
