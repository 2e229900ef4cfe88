"""How a coefficient moves over training: pure functions of progress, so a resumed run needs no memory."""

from __future__ import annotations

import math
from dataclasses import dataclass


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from ``start`` at progress 0 to ``end`` at progress 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


@dataclass(frozen=True)
class WarmupCosine:
    """Learning-rate factor in [0, 1] of optimiser step k: linear warm-up, then a cosine to 0.

    ``per_epoch`` holds the cosine still within an epoch, as the reference scripts of MoCo and SimSiam do.
    """

    total_steps: int
    steps_per_epoch: int
    warmup_steps: int
    per_epoch: bool

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.per_epoch:
            step = step // self.steps_per_epoch * self.steps_per_epoch
        # Past the warm-up the cosine continues from where it would have been without one.
        return cosine(1.0, 0.0, step / self.total_steps)


@dataclass(frozen=True)
class WarmupConstant:
    """Learning-rate factor in (0, 1] of optimiser step k: linear warm-up, then 1."""

    warmup_steps: int

    def __call__(self, step: int) -> float:
        return min(1.0, (step + 1) / max(1, self.warmup_steps))
