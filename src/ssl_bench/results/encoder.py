"""A trained backbone as one file, and back: the official safetensors format with torchvision's parameter names."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ssl_bench.augment.views import CleanView, in_graph
from ssl_bench.errors import UserError
from ssl_bench.files import write_whole
from ssl_bench.nn.backbone import build_backbone

RANGE = (-0.5, 1.5)  # floats beyond it are not 0–1, whatever a resize added at edges


class Encoder(nn.Module):
    """Images, float 0–1 or uint8, ``[N, C, H, W]`` at native size → features ``[N, F]`` of the weights' type."""

    def __init__(self, clean: CleanView, backbone: nn.Module) -> None:
        super().__init__()
        self.clean = clean
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        _warn_of_range(images)
        features: Tensor = self.backbone(self.clean(images).to(self.clean.mean.dtype))
        return features


def _warn_of_range(images: Tensor) -> None:
    """Show a warning for floats that cannot be 0–1, as 0–255 or normalised ones; a graph is made without it."""
    if in_graph() or not images.is_floating_point() or not images.numel():
        return
    low, high = torch.stack(images.detach().aminmax()).tolist()
    if low < RANGE[0] or high > RANGE[1]:
        warnings.warn(
            f"an encoder takes images as floats of 0–1 or uint8 of 0–255, but these are floats from {low:.3g} to "
            f"{high:.3g}: divide what is 0–255 by 255, and leave normalising to the encoder.",
            stacklevel=3,
        )


def save_encoder(path: Path, backbone: nn.Module, description: dict[str, Any]) -> None:
    """Write the weights, with what is needed to build the network again as JSON in the file's header.

    description: ``backbone`` (arguments of build_backbone) and ``clean`` (arguments of CleanView).
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    # One entry only: safetensors writes several in a random order, and equal runs should give equal files.
    header = {"ssl_bench": json.dumps(description, sort_keys=True)}
    # Not safetensors' own file, which nobody else may read.
    write_whole(path, lambda temporary: temporary.write_bytes(save(weights, metadata=header)))


def load_encoder(run_or_file: str | Path) -> nn.Module:
    """The encoder of a run, in eval mode: images float 0–1 ``[N, C, H, W]`` → features ``[N, F]``.

    run_or_file: a run's folder or its ``encoder.safetensors``. The module resizes and normalises as in training.
    Raises UserError for a file that is missing, damaged or not ours.
    """
    return read_encoder(encoder_file(run_or_file))[0]


def encoder_file(run_or_file: str | Path) -> Path:
    """The file itself, or that of a run's folder; UserError if there is none."""
    path = Path(run_or_file)
    if path.is_dir():
        path = path / "encoder.safetensors"
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a finished run's folder or its encoder.safetensors.")
    return path


def read_encoder(path: Path) -> tuple[Encoder, dict[str, Any]]:
    """The encoder in a file of ours, in eval mode, and what `save_encoder` was given; UserError as above."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        description: dict[str, Any] = json.loads(header["ssl_bench"])
        backbone, _ = build_backbone(**description["backbone"])
        backbone.load_state_dict(weights)
        encoder = Encoder(CleanView(**description["clean"]), backbone)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is not an encoder saved by ssl_bench, or is damaged ({reason}): give another."
        ) from None
    return encoder.to(memory_format=torch.channels_last).eval(), description
