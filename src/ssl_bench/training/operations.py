"""The floating-point operations of training, counted and not measured, and how long a CPU takes for them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ssl_bench import conditions
from ssl_bench.config.experiments import passes_per_epoch
from ssl_bench.config.schema import Config
from ssl_bench.data.catalog import Dataset
from ssl_bench.data.datamodule import DataModule
from ssl_bench.devices import device_type
from ssl_bench.machine import cores
from ssl_bench.training.build import build_method

CORE_SPEED = 2e11  # operations a second that a core with AVX-512 reaches in training a ResNet-18


def forward_operations(network: nn.Module, channels: int, size: int) -> int:
    """Floating-point operations of convolutions and matrix products for one image of ``size`` × ``size`` pixels."""
    device = next(network.parameters()).device
    # Fused attention has no count on a CPU.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, channels, size, size, device=device))
    return int(counter.get_total_flops())


def images_looked_at(config: Config, images: int) -> int:
    """Images of all training steps, each as often as it is looked at; ``images`` are pretrained on."""
    seen = images // config.batch_size * config.batch_size * config.epochs * passes_per_epoch(config)
    if config.method.options.get("lookahead_batch", "fresh") != "fresh":  # the same images K times
        seen *= config.method.options["lookahead"]
    return seen


def of_an_image(config: Config, dataset: Dataset) -> int:
    """Operations for one look at an image: the student's passes over all views, the teacher's over full-size ones.

    Forward and backward pass cost three forward passes together. Of convolutions and matrix products, two for each
    multiply-add; what is small beside the networks (views, predictor, loss, optimiser) is not counted.
    """
    # Built here and for here, which need not be the machine that will train.
    method = build_method(config.changed({"trainer.accelerator": "cpu", "trainer.compile": False}), dataset)
    sizes, student = method.views.sizes, method.student.to("meta")  # where nothing is computed
    forward = {size: forward_operations(student, dataset.channels, size) for size in set(sizes)}
    each = 3 * sum(forward[size] for size in sizes)
    if method.teacher is not None:
        each += sum(forward[size] for size in sizes[: method.views.full_size])
    return each


def require_consent(config: Config, data: DataModule) -> None:
    """UserError at scale=paper where no GPU was found and the CPU was not asked for."""
    none_found = config.trainer.accelerator == "auto" and device_type(config.trainer.accelerator) == "cpu"
    if config.scale.name == "paper" and none_found:
        conditions.require_time_on_cpu("paper", cpu_time(config, data))


def cpu_time(config: Config, data: DataModule) -> str:
    """How long training takes on this machine's processors, in words."""
    operations = images_looked_at(config, len(data.parts.pretraining)) * of_an_image(config, data.dataset)
    hours = operations / (CORE_SPEED * cores() * 3600)
    length = f"{hours:.2g} hours" if hours < 48 else f"{hours / 24:.2g} days"
    return f"training takes about {length} on {cores()} cores"
