"""From what a short run costs to what a whole one will."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_bench.config.compose import Config


@dataclass(frozen=True)
class Evaluation:
    """What a kind of run costs outside its steps; seconds and bytes."""

    key: str  # of all kinds that it holds for
    load: float  # images
    monitor: float
    curves: float
    final: float
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


def seconds(measured: Measured, config: Config) -> float:
    """Of one run, from its start to its record."""
    passes = config["epochs"] * measured.passes_per_epoch
    training = passes * (measured.steps * measured.step + measured.epoch)
    monitors, curves = evaluations(passes, config["monitor_every"], config["eval_every"])
    evaluating = monitors * measured.evaluation.monitor + curves * measured.evaluation.curves
    saves = 1 + (training + evaluating) // config["trainer"]["checkpoint_seconds"]
    ends = measured.evaluation.load + measured.start + measured.evaluation.final
    return float(ends + training + evaluating + saves * measured.save)


def evaluations(passes: int, monitor_every: int, curves_every: int) -> tuple[int, int]:
    """How often the monitor looks alone, and how often curves are measured; they are after the last pass, too."""
    curves = {*range(curves_every, passes + 1, curves_every), passes}
    return len(set(range(monitor_every, passes + 1, monitor_every)) - curves), len(curves)


def disk(measured: Measured) -> int:
    """Bytes that one run leaves."""
    return measured.checkpoint + measured.evaluation.files
