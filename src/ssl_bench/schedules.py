"""How a coefficient moves over training: pure functions of progress, so a resumed run needs no memory."""

from __future__ import annotations

import math
from dataclasses import dataclass


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from ``start`` at progress 0 to ``end`` at progress 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


def peak_lr(base: float, images: int, *, scaled: bool) -> float:
    """The learning rate after warm-up; ``scaled``: base · images of a step / 256 (Goyal et al. 2017)."""
    return base * images / 256 if scaled else base


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


# What the proximal term slows the student by grows with its strength λe and with the learning rate; where the teacher's
# step decays as κ/e, with e once more. The largest values of those products over t = e/E in [0, 1], as a share of the
# learning rate's: where it follows a cosine, of t (1 + cos πt)/2 at 0.42, and of t² (1 + cos πt)/2 at 0.56.
PEAKS = {"constant": 0.262, "decay": 0.128}


def teacher_schedule(*, rule: str, sgd: str) -> str:
    """``constant`` for a teacher that is a moving average, for which no other is known; else ``sgd``."""
    return "constant" if rule == "ema" else sgd


def teacher_step(*, schedule: str, constant: float) -> float:
    """κ: ``constant``, or 1, all the way to the student in epoch 1, where it decays as κ/e."""
    return 1.0 if schedule == "decay" else constant


def proximal_weight(
    *,
    optimizer: str,
    lr: float,
    lr_schedule: str,
    scale_lr_with_batch: bool,
    images: int,
    momentum: float,
    epochs: int,
    lookahead: int,
    teacher_rule: str,
    teacher_step: float,
    teacher_schedule: str,
) -> float:
    """λ of CLBO's proximal term under which the student drifts at two thirds of its speed where the term is strongest.

    Under a steady gradient g the student moves by a·g a step, a = lr/(1 − β), and the teacher by κ of the gap between
    them every K steps, so that the gap settles at K·a·g / (κ + K·a·λe) in epoch e: the student is slower by the factor
    1 + K·a·λe/κ than without the term. With κ/e in place of κ where it decays, the second summand is at most
    P·K·E·λ·lr / ((1 − β)·κ) over E epochs, where P is one of ``PEAKS``, or 1 where lr is constant (times E where κ
    decays). λ makes it one half. A moving average moves after every step: K is 1. Under Muon the term acts apart from
    the momentum, as if β were 0.

    This takes the gap as settled and e/E as continuous, as of many epochs; in two, the student is slowed to about half
    of its speed, and in one to a third or less. It does not hold with ``restart``, which closes the gap at every
    teacher step.

    0 under AdamW and LARS: their steps divide by the size of the gradient, so that no λ is known before it is.

    lr: the base rate, which grows with the ``images`` of a step where ``scale_lr_with_batch``.
    """
    if optimizer not in ("sgd", "muon"):
        return 0.0
    lr = peak_lr(lr, images, scaled=scale_lr_with_batch)
    momentum = 0.0 if optimizer == "muon" else momentum
    steps = 1 if teacher_rule == "ema" else lookahead
    peak = 1.0 if lr_schedule == "constant" else PEAKS[teacher_schedule]
    peak *= epochs if teacher_schedule == "decay" else 1
    return 0.5 * teacher_step * (1 - momentum) / (peak * steps * epochs * lr)
