"""From what a short run costs to what a whole one will."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_bench.config.schema import Config
from ssl_bench.files import name_of


@dataclass(frozen=True)
class Baseline:
    """What runs of the same images (and, for random weights, of the same network and seed) score once."""

    identity: dict[str, Any]  # with the seed of the run that was measured
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """What a kind of run costs outside its steps; seconds and bytes."""

    key: str  # of all kinds that it holds for
    load: float  # images
    monitor: float
    curves: float
    final: float  # baselines are there
    baselines: tuple[Baseline, ...]
    files: int  # without the checkpoint
    memory: int
    gpu_memory: int  # of a GPU


@dataclass(frozen=True)
class Measured:
    """What one kind of run costs; seconds and bytes."""

    evaluation: Evaluation
    start: float
    step: float
    epoch: float  # beside its steps
    save: float
    checkpoint: int
    steps: int  # of an epoch, that is a pass over the images
    passes_per_epoch: int
    memory: int
    gpu_memory: int  # of a GPU, taken from the system; 0 on a CPU


def measure(config: Config, known: dict[str, Evaluation]) -> Measured:
    """What ``measure.measure`` finds; for a process of its own, since that imports what takes seconds."""
    from ssl_bench.plan import measure

    return measure.measure(config, known)


def operations(configs: list[Config]) -> list[tuple[int, int]]:
    """What ``operations.of_training`` counts for each; for a process of its own, for the same reason."""
    from ssl_bench.plan.operations import of_training

    return [of_training(config) for config in configs]


def seconds(measured: Measured, config: Config) -> float:
    """Of one run, from its start to its record; where the baselines have been scored before."""
    passes = config.epochs * measured.passes_per_epoch
    training = passes * (measured.steps * measured.step + measured.epoch)
    monitors, curves = evaluations(passes, config.monitor_every, config.eval_every)
    evaluating = monitors * measured.evaluation.monitor + curves * measured.evaluation.curves
    saves = 1 + (training + evaluating) // config.trainer.checkpoint_seconds
    ends = measured.evaluation.load + measured.start + measured.evaluation.final
    return float(ends + training + evaluating + saves * measured.save)


def evaluations(passes: int, monitor_every: int, curves_every: int) -> tuple[int, int]:
    """How often the monitor measures alone, and how often curves are measured; they are after the last pass, too."""
    curves = {*range(curves_every, passes + 1, curves_every), passes}
    return len(set(range(monitor_every, passes + 1, monitor_every)) - curves), len(curves)


def baselines(measured: Measured, config: Config, charged: set[Path]) -> float:
    """Seconds to score those that neither an earlier run has kept nor one was charged for; then they are charged."""
    seconds = 0.0
    for baseline in measured.evaluation.baselines:
        seed = {"seed": config.seed} if "seed" in baseline.identity else {}
        path = Path(config.runs_dir) / "baselines" / f"{name_of(baseline.identity | seed)}.json"
        if path not in charged and not path.exists():
            seconds += baseline.seconds
        charged.add(path)
    return seconds


def disk(measured: Measured) -> int:
    """Bytes that one run leaves."""
    return measured.checkpoint + measured.evaluation.files
