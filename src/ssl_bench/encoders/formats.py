"""What each library is given, and the lines of Python that load it: the card shows them, the check runs them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from ssl_bench.augment.views import CleanView
from ssl_bench.errors import UserError
from ssl_bench.nn.backbone import LAYERS
from ssl_bench.results.encoder import Encoder, save_encoder
from ssl_bench.results.weights import LoadedEncoder

OTHERS = "use to=onnx, which takes every network"


@dataclass(frozen=True)
class Subject:
    """An encoder that is to be exported, with the clean view that it was trained for."""

    encoder: LoadedEncoder
    clean: dict[str, Any]  # arguments of CleanView
    preprocessing: bool = False  # within the graph
    opset: int | None = None

    @property
    def backbone(self) -> nn.Module:
        return self.encoder.backbone

    @property
    def network(self) -> dict[str, Any]:
        return self.encoder.network

    @property
    def is_published(self) -> bool:
        """Whether it is a ResNet with the stem and the width of its paper."""
        return (self.network["stem"], self.network["width"]) == ("imagenet", 64)


@dataclass(frozen=True)
class Format:
    """A library's: writes files into a folder, and shows how they are loaded.

    lines: of Python, those that load from ``folder`` and those that turn ``images`` into ``features``. takes_raw:
    whether its images are 0–1 at their own size; else they are the network's normalised input.
    """

    require: Callable[[Subject], None]  # UserError where the library lacks the network
    write: Callable[[Subject, Path], None]
    lines: Callable[[Subject], tuple[str, str]]
    takes_raw: Callable[[Subject], bool] = lambda subject: False


def _any(subject: Subject) -> None:
    """Every network will do."""


def _write_ours(subject: Subject, folder: Path) -> None:
    run = {"fingerprint": subject.encoder.fingerprint} if subject.encoder.fingerprint else {}
    description = {"backbone": subject.network, "clean": subject.clean, **run}
    save_encoder(folder / "encoder.safetensors", subject.backbone, description)


def _ours(subject: Subject) -> tuple[str, str]:
    return (
        'import ssl_bench\n\nencoder = ssl_bench.load_encoder(f"{folder}/encoder.safetensors")',
        "features = encoder(images)",
    )


def _of_torchvision(subject: Subject) -> None:
    name, width = subject.network["name"], subject.network["width"]
    if name not in LAYERS:
        raise UserError(f"torchvision is given ResNets only, and this is {name}: use to=timm or to=onnx.")
    if width != 64:
        raise UserError(f"torchvision has no {name} of width {width}, only of 64: {OTHERS}.")


def _write_torchvision(subject: Subject, folder: Path) -> None:
    weights = {name: tensor.contiguous() for name, tensor in subject.backbone.state_dict().items()}
    torch.save(weights, folder / "encoder.pth")


def _torchvision(subject: Subject) -> tuple[str, str]:
    name, stem, channels = (subject.network[key] for key in ("name", "stem", "channels"))
    block, layers = LAYERS[name]
    known = name != "resnet10"
    made = f"{name}()" if known else f"ResNet(torchvision.models.resnet.{block.__name__}, {list(layers)})"
    kernel, stride = {"imagenet": (7, 2), "small": (3, 2), "cifar": (3, 1)}[stem]
    lines = ["import torch", "import torchvision", "", f"encoder = torchvision.models.{made}"]
    if not (stem == "imagenet" and channels == 3):
        lines.append(
            f"encoder.conv1 = torch.nn.Conv2d({channels}, 64, {kernel}, {stride}, padding={kernel // 2}, bias=False)"
        )
    if stem != "imagenet":
        lines.append("encoder.maxpool = torch.nn.Identity()")
    lines += [
        "encoder.fc = torch.nn.Identity()",
        'encoder.load_state_dict(torch.load(f"{folder}/encoder.pth", weights_only=True))',
        "encoder.eval()",
    ]
    return "\n".join(lines), "features = encoder(images)"


def _of_timm(subject: Subject) -> None:
    name = subject.network["name"]
    if name.startswith("timm/"):
        return
    if name == "resnet10" or not subject.is_published:
        raise UserError(
            f"timm has no {name} with the {subject.network['stem']} stem of width {subject.network['width']}, only "
            f"ResNet-18, 34 and 50 with stem=imagenet and width=64: {OTHERS}."
        )


def _write_timm(subject: Subject, folder: Path) -> None:
    """A folder as on the Hub: the weights, and in config.json the network and its preprocessing."""
    network, clean = subject.network, subject.clean
    weights = {name: tensor.contiguous() for name, tensor in subject.backbone.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    own: Any = subject.backbone
    about = dict(getattr(own, "pretrained_cfg", {}))
    side = clean["size"]
    config = {
        "architecture": network["name"].removeprefix("timm/"),
        "num_classes": 0,
        "num_features": int(
            getattr(own, "num_features", 512 * LAYERS.get(network["name"], LAYERS["resnet18"])[0].expansion)
        ),
        "model_args": {"in_chans": network["channels"], **(network.get("arguments") or {})},
        "pretrained_cfg": {
            "input_size": [network["channels"], side, side],
            "fixed_input_size": bool(about.get("fixed_input_size", False)),
            "interpolation": "bilinear",
            "crop_pct": clean["crop"],
            "crop_mode": "center",
            "mean": clean["mean"],
            "std": clean["std"],
            "num_classes": 0,
            "pool_size": about.get("pool_size"),
            "first_conv": about.get("first_conv", "conv1"),
            "classifier": about.get("classifier", "fc"),
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _timm(subject: Subject) -> tuple[str, str]:
    return (
        'import timm\n\nencoder = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()',
        "features = encoder(images)",
    )


def _transformers(subject: Subject) -> tuple[str, str]:
    return (
        "from transformers import AutoModel\n\nencoder = AutoModel.from_pretrained(folder).eval()",
        "features = encoder(images).pooler_output",
    )


def _write_onnx(subject: Subject, folder: Path) -> None:
    side, channels = subject.clean["size"], subject.network["channels"]
    network = subject.backbone
    free = {0: torch.export.Dim("images")}
    example = torch.zeros(2, channels, side, side)
    if subject.preprocessing:
        network = Encoder(CleanView(**subject.clean), subject.backbone).eval()
        free |= {2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
        example = torch.zeros(2, channels, side + 4, side + 9)
    torch.onnx.export(
        network,
        (example,),
        folder / "encoder.onnx",
        dynamo=True,
        dynamic_shapes=(free,),
        input_names=["images"],
        output_names=["features"],
        opset_version=subject.opset,
        external_data=False,
        verbose=False,
    )
    import onnx

    written = {entry.domain: entry.version for entry in onnx.load(folder / "encoder.onnx").opset_import}.get("")
    if subject.opset not in (None, written):  # where PyTorch cannot convert, it leaves the version as it was
        raise UserError(f"opset={subject.opset} cannot be written, PyTorch writes {written}: set another, or none.")


def _onnx(subject: Subject) -> tuple[str, str]:
    return (
        "import onnxruntime\n\n"
        'encoder = onnxruntime.InferenceSession(f"{folder}/encoder.onnx", providers=["CPUExecutionProvider"])',
        '(features,) = encoder.run(["features"], {"images": images.numpy()})',
    )


FORMATS = {
    "safetensors": Format(_any, _write_ours, _ours, lambda subject: True),
    "torchvision": Format(_of_torchvision, _write_torchvision, _torchvision),
    "timm": Format(_of_timm, _write_timm, _timm),
    "transformers": Format(_of_timm, _write_timm, _transformers),
    "onnx": Format(_any, _write_onnx, _onnx, lambda subject: subject.preprocessing),
}
