"""A training step as the program computes it against the same step in plain float32."""

from __future__ import annotations

import torch

from benchmarks.bare import BareLoop, default_loop
from benchmarks.measurement import Measurement, Target, alternate, rates
from benchmarks.synthetic import batches, configuration, pictures, synthetic_dataset
from ssl_bench import devices
from ssl_bench.training import build


def measure(repeats: int, *, small: bool, device: torch.device) -> list[Measurement]:
    """SimCLR, ResNet-18 with CIFAR stem, 32 px, two ready views of each image."""
    size, width, turns = (8, 4, 1) if small else (128, 64, 2)
    dataset = synthetic_dataset(size, channels=3, side=32)
    config = configuration(
        dataset, "method=simclr", "backbone.stem=cifar", f"backbone.width={width}", f"batch_size={size}"
    )
    precision = devices.resolve_precision(config.trainer.precision, config.trainer.accelerator)
    (batch,) = batches(pictures(size, 3, 32), size)
    ours = default_loop(build.build_method(config, dataset).to(device), batch, precision)
    plain = build.build_method(config, dataset).to(device, memory_format=torch.contiguous_format)
    baseline = BareLoop(
        plain,
        [view.contiguous() for view in ours.views],
        ours.batch,
        precision="32-true",
        optimizer=torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4),
    )
    pairs = alternate(ours.step, baseline.step, repeats, turns=turns, device=device)
    return [
        Measurement(
            benchmark="step",
            case=f"SimCLR, ResNet-18 width {width}, 32 px, batch {size}",
            ours=f"{precision}, channels_last, fused SGD",
            baseline="float32, NCHW, SGD as PyTorch has it",
            unit="images/s",
            pairs=rates(pairs, turns * size),
            meaning="times as fast as the baseline",
            target=Target(2.2, at_least=True),
        )
    ]
