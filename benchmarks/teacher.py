"""What CLBO adds to a training step: the proximal gradient and the teacher's update, as a share of its time."""

from __future__ import annotations

import torch

from benchmarks.bare import default_loop
from benchmarks.measurement import Measurement, Target, alternate
from benchmarks.synthetic import batches, configuration, pictures, synthetic_dataset
from ssl_bench import devices, teachers
from ssl_bench.training import build


def measure(repeats: int, *, small: bool, device: torch.device) -> list[Measurement]:
    """Against the cheapest step, SimCLR's, and with a teacher that moves after every one (K = 1)."""
    size, width, turns = (8, 4, 1) if small else (128, 64, 5)
    dataset = synthetic_dataset(size, channels=3, side=32)
    config = configuration(
        dataset, "method=simclr", "backbone.stem=cifar", f"backbone.width={width}", f"batch_size={size}"
    )
    precision = devices.resolve_precision(config.trainer.precision, config.trainer.accelerator)
    (batch,) = batches(pictures(size, 3, 32), size)
    loop = default_loop(build.build_method(config, dataset).to(device), batch, precision)
    student, teacher = loop.method.student, teachers.twin(loop.method.student)
    loop.step()  # there are gradients to add to

    def update() -> None:
        teachers.add_proximal_gradient(student, teacher, strength=1e-4)
        teachers.step_towards(teacher, student, rate=0.01)

    # The step comes before the update in every turn, and leaves the caches as it does in training.
    pairs = alternate(loop.step, update, repeats, turns=turns, device=device)
    return [
        Measurement(
            benchmark="teacher",
            case=f"ResNet-18 width {width}, 32 px, batch {size}",
            ours="proximal gradient and teacher step",
            baseline=f"SimCLR step on ready views, {precision}",
            unit="ms",
            pairs=[(1000 * mine / turns, 1000 * theirs / turns) for theirs, mine in pairs],
            meaning="share of a training step",
            target=Target(0.01, at_least=False),
        )
    ]
