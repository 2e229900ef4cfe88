"""What a run needs of this machine and of these images: room, time and labels."""

from __future__ import annotations

import torch
from rich.filesize import decimal
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ssl_bench import conditions
from ssl_bench.config.options import block_of
from ssl_bench.config.schema import Config
from ssl_bench.data.catalog import Dataset
from ssl_bench.data.datamodule import DataModule
from ssl_bench.devices import device_type, resolve_device
from ssl_bench.errors import UserError
from ssl_bench.machine import cores, memory
from ssl_bench.nn.backbone import build_backbone

CORE_SPEED = 2e11  # operations a second that a core with AVX-512 reaches in training a ResNet-18


def require_room(config: Config, dataset: Dataset) -> None:
    """UserError where not even the images of a batch, as the network sees them, fit into a CPU's memory."""
    if resolve_device(config.trainer.accelerator).type != "cpu":
        return
    side = config.dataset.size
    pixels = sum(views.count * views.size**2 for views in config.augment.groups.values())  # of all views of an image
    for key, images, each in (
        ("batch_size", config.batch_size // config.trainer.nodes, pixels),
        ("evaluation.batch_size", config.evaluation.batch_size, side**2),
    ):
        needed = 4 * dataset.channels * images * each  # float32
        if needed > memory():
            raise UserError(
                f"{key}={images} images at dataset.size={side} pixels need {decimal(needed)} of memory, more than "
                f"there is: choose a smaller dataset.size or {key}."
            )


def require_consent(config: Config, data: DataModule) -> None:
    """UserError at scale=paper where no GPU was found and the CPU was not asked for."""
    none_found = config.trainer.accelerator == "auto" and device_type(config.trainer.accelerator) == "cpu"
    if config.scale.name == "paper" and none_found:
        conditions.require_time_on_cpu("paper", cpu_time(config, data))


def forward_operations(network: nn.Module, channels: int, size: int) -> int:
    """Floating-point operations of convolutions and matrix products for one image of ``size`` × ``size`` pixels."""
    device = next(network.parameters()).device
    # Fused attention has no count on a CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, channels, size, size, device=device))
    return int(counter.get_total_flops())


def cpu_time(config: Config, data: DataModule) -> str:
    """How long training takes on this machine's processors, in words, by the operations of the backbone."""
    with torch.device("meta"):
        network, _ = build_backbone(**config.backbone.as_dict(), channels=data.dataset.channels)
    each = sum(
        views.count * forward_operations(network, data.dataset.channels, views.size)
        for views in config.augment.groups.values()
    )
    # The backward pass costs two forward passes.
    operations = 3 * each * len(data.parts.pretraining) * config.epochs
    hours = operations / (CORE_SPEED * cores() * 3600)
    length = f"{hours:.2g} hours" if hours < 48 else f"{hours / 24:.2g} days"
    return f"training takes about {length} on {cores()} cores"


def require_labels(config: Config, data: DataModule) -> None:
    """UserError where a method that learns classes has none, or no image whose class is known."""
    if not block_of(config.method.name, "needs").get("labels"):
        return
    classes, labels = data.dataset.classes, data.splits["train"].labels[data.parts.pretraining]
    if classes < 2 or not (labels >= 0).any():
        lacking = "none of its images has a label" if classes > 1 else f"it has {classes} class(es)"
        raise UserError(
            f"method={config.method.name} learns classes, and cannot on dataset={data.dataset.name}: {lacking}."
        )
