"""Backbones: torchvision's ResNets with a stem for small images and a width; timm's models by name."""

import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from ssl_bench.conditions import require_arguments, require_whole_patches
from ssl_bench.config.options import nearest, typed
from ssl_bench.errors import UserError

LAYERS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
}


class StridedConv(nn.Conv2d):
    """A convolution that goes around two wrong weight gradients of oneDNN's, seen with torch 2.14 on the CPU.

    Over a single pixel, to which small views come in deep stages, it is wrong in bfloat16 (values of 1e35). There the
    stride changes nothing and is left out. On a processor with AVX2 alone, of a kernel of one pixel over 4 channels in
    channels_last it was off by up to half its length, and processes crashed. Below 8 channels the pixels that it reads
    are taken beforehand.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.shape[-2:] == (1, 1):
            return F.conv2d(input, weight, bias, 1, self.padding, self.dilation, self.groups)
        if self.kernel_size == (1, 1) and self.padding == (0, 0) and self.in_channels < 8:
            down, across = self.stride
            return F.conv2d(input[..., ::down, ::across], weight, bias, 1, 0, 1, self.groups)
        output: Tensor = super()._conv_forward(input, weight, bias)
        return output


class ResNet(TorchvisionResNet):
    """torchvision's ResNet (He et al. 2016) without its classifier, under torchvision's state-dict keys.

    stem: ``imagenet`` 7×7 stride 2 and max-pool; ``small`` 3×3 stride 2; ``cifar`` 3×3 stride 1 (both no pool).
    ``width`` is the first stage's channel count, 64 in the paper. Images ``[N, C, H, W]`` → features ``[N, F]``.
    """

    def __init__(self, name: str, *, stem: str, width: int, channels: int) -> None:
        nn.Module.__init__(self)
        block, layers = LAYERS[name]
        # What torchvision's constructor would set; it fixes three input channels and a width of 64.
        self._norm_layer = nn.BatchNorm2d
        self.groups, self.base_width, self.dilation = 1, 64, 1
        self.inplanes = width
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 2 if stem == "small" else 1)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        self.layer1 = self._make_layer(block, width, layers[0])
        self.layer2 = self._make_layer(block, 2 * width, layers[1], stride=2)
        self.layer3 = self._make_layer(block, 4 * width, layers[2], stride=2)
        self.layer4 = self._make_layer(block, 8 * width, layers[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def build_backbone(
    name: str, *, stem: str, width: int, channels: int, arguments: Mapping[str, Any] | None = None
) -> tuple[nn.Module, int]:
    """The network ``[N, C, H, W]`` → ``[N, F]`` and its feature width F.

    ``name`` is one of ``resnet18|34|50|10`` or ``timm/<model>``, which needs the extra ``timm`` and ignores
    ``stem`` and ``width``. ``arguments`` are of the constructor of timm's model. Raises UserError for a name that is
    neither, and for arguments that the network does not take.
    """
    network: nn.Module
    if arguments:
        require_arguments(name, arguments, sizes=())
    if name in LAYERS:
        block, _ = LAYERS[name]
        network, features = ResNet(name, stem=stem, width=width, channels=channels), 8 * width * block.expansion
    elif name.startswith("timm/"):
        network, features = _timm(name.removeprefix("timm/"), channels, arguments or {})
    else:
        known = ", ".join(LAYERS)
        raise UserError(
            f"backbone.name={name} is unknown: use {known}, or timm/<model> with pip install 'ssl-bench[timm]'."
        )
    for module in network.modules():
        if type(module) is nn.Conv2d and max(module.stride) > 1:
            module.__class__ = StridedConv
    return network, features


def stages(network: nn.Module) -> dict[str, nn.Module]:
    """The modules whose outputs are those of a network's stages, by name, in their order.

    Of timm's models those that it lists itself (``feature_info``); none where there is no such list.
    """
    if isinstance(network, ResNet):
        named = {"stem": "maxpool", **{name: name for name in ("layer1", "layer2", "layer3", "layer4")}}
    else:
        named = {entry["module"]: entry["module"] for entry in getattr(network, "feature_info", None) or ()}
    modules = dict(network.named_modules())
    return {name: modules[place] for name, place in named.items() if place in modules}


def require_size(network: nn.Module, name: str, channels: int, size: int) -> None:
    """UserError if the network takes no images of ``size`` pixels, or gives no features ``[N, F]`` of them."""
    training = network.training
    patches: Any = getattr(network, "patch_embed", None)
    for patch in getattr(patches, "patch_size", None) or () if not getattr(patches, "dynamic_img_pad", False) else ():
        require_whole_patches(name, size, patch)  # what is over at the edges would not be seen
    try:
        with torch.no_grad():
            features = network.eval()(torch.zeros(1, channels, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        other = f"set another size, or backbone.arguments={{img_size: {size}}}" if patches else "set another size"
        raise UserError(f"{name} takes no images of {size} pixels ({reason}): {other}.") from None
    finally:
        network.train(training)
    if features.ndim != 2:
        raise UserError(f"{name} gives {list(features.shape)} and not one row per image.")


def _timm(model: str, channels: int, arguments: Mapping[str, Any]) -> tuple[nn.Module, int]:
    try:
        import timm
    except ImportError:
        raise UserError(f"backbone timm/{model} needs timm: pip install 'ssl-bench[timm]'.") from None
    if not timm.is_model(model):
        near = timm.list_models(f"*{model.split('_')[0]}*")[:3]
        raise UserError(f"timm has no model {model!r}" + (f"; near: {', '.join(near)}." if near else "."))
    try:
        network: Any = timm.create_model(model, pretrained=False, in_chans=channels, num_classes=0, **arguments)
    except Exception as error:  # timm's models refuse their arguments in many ways
        if not arguments:
            raise
        unknown = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
        if unknown:
            own = getattr(sys.modules[timm.models.model_entrypoint(model).__module__], unknown[1], None)
            hint = nearest(unknown[2], [*inspect.signature(own).parameters] if own else []) or "."
            raise UserError(f"timm's {model} has no argument {unknown[2]} for backbone.arguments{hint}") from None
        given = ", ".join(f"{key}: {typed(value)}" for key, value in arguments.items())
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"timm's {model} takes no backbone.arguments={{{given}}} ({reason}).") from None
    # Some have a layer behind their features, whose outputs are what a classifier would read.
    return network, int(getattr(network, "head_hidden_size", None) or network.num_features)
