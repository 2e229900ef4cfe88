"""From what a short run costs to what a whole one will."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_bench.config import Config

if TYPE_CHECKING:  # it imports what takes seconds
    from ssl_bench.plan.measure import Measured


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
