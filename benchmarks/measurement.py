"""What one comparison found, and how two ways are timed in turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

HOST = torch.device("cpu")


@dataclass(frozen=True)
class Target:
    """The figure to reach: of the ratio, or of our own value where ``on`` says so."""

    number: float
    at_least: bool  # else at most
    on: str = "ratio"  # or "value"

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.number:g}"


@dataclass(frozen=True)
class Measurement:
    """What our way and the baseline took, in turn."""

    benchmark: str
    case: str
    ours: str  # what was measured, in words
    baseline: str
    unit: str
    pairs: Sequence[tuple[float, float]]  # ours, the baseline's
    meaning: str  # of the ratio, in words; empty where our own value is judged, which is not drawn
    inverse: bool = False  # the ratio is baseline / ours, else ours / baseline
    target: Target | None = None

    @property
    def values(self) -> list[float]:
        """Ours."""
        return [mine for mine, _ in self.pairs]

    @property
    def baseline_values(self) -> list[float]:
        """The baseline's."""
        return [theirs for _, theirs in self.pairs]

    @property
    def ratios(self) -> list[float]:
        """One per pair: what slows the machine for a while slows both sides of a pair, and cancels."""
        return [theirs / mine if self.inverse else mine / theirs for mine, theirs in self.pairs]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return median(self.ratios)

    @property
    def reached(self) -> bool | None:
        """Whether the target was reached, None without one."""
        if self.target is None:
            return None
        judged = self.ratio if self.target.on == "ratio" else median(self.values)
        return judged >= self.target.number if self.target.at_least else judged <= self.target.number


def alternate(
    ours: Callable[[], object],
    baseline: Callable[[], object],
    repeats: int,
    *,
    turns: int,
    before: Callable[[], object] = lambda: None,
    device: torch.device = HOST,
) -> list[tuple[float, float]]:
    """Seconds of both, A B A B …, after one call of each that is not counted.

    Each of the ``repeats`` pairs is the sum over ``turns`` calls of both: the shorter a turn, the more alike is what
    else happens on the machine during both sides. ``before`` is called before every call, and not timed; ``device`` is
    where the work is done.
    """
    found = rotate((ours, baseline), repeats, turns=turns, before=before, device=device)
    return [(mine, theirs) for mine, theirs in found]


def rotate(
    ways: Sequence[Callable[[], object]],
    repeats: int,
    *,
    turns: int,
    before: Callable[[], object] = lambda: None,
    device: torch.device = HOST,
) -> list[tuple[float, ...]]:
    """Seconds of any number of ways in turn, A B C A B C …; else as ``alternate``."""

    def timed(way: Callable[[], object]) -> float:
        before()
        return seconds(way, device)

    for way in ways:
        timed(way)
    found: list[tuple[float, ...]] = []
    for _ in range(repeats):
        gc.collect()  # not in the middle of somebody's turn
        calls = [[timed(way) for way in ways] for _ in range(turns)]
        found.append(tuple(map(sum, zip(*calls, strict=True))))
    return found


def seconds(work: Callable[[], object], device: torch.device = HOST) -> float:
    """Time of one call: on a CUDA device, from its events, so that the work is over; else by the wall clock."""
    if device.type == "cuda":
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        began.record()
        work()
        ended.record()
        ended.synchronize()
        return float(began.elapsed_time(ended)) / 1000
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rates(pairs: Sequence[tuple[float, float]], amount: float) -> list[tuple[float, float]]:
    """``amount`` per second, from the seconds of both sides."""
    return [(amount / mine, amount / theirs) for mine, theirs in pairs]
