"""MoCo (He et al. 2020, "Momentum Contrast"; v2: Chen et al. 2020; the symmetric loss of the authors' CIFAR notebook).

    L = −log exp(q·k₊/T) / (exp(q·k₊/T) + Σ_{k ∈ queue} exp(q·k/T))                                 (eq. 1)
    ξ ← ηξ + (1 − η)θ                                                                               (eq. 2)

q: the student's embedding of one view, k₊: the teacher's of the other, both of unit length; both directions. The
queue holds the teacher's embeddings of earlier batches only: both directions read it before this batch's keys, those
of view 1 and then of view 2, are enqueued.

Deviations: directions are averaged. BatchNorm sees the whole global batch in student and teacher; the paper shuffles
images among devices instead so that a query and its key do not share statistics, which would make the result depend
on the number of devices. Heads have the common protocol's BatchNorm, which v2's have not; the notebook's single linear
layer comes with ``recipe=original``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_bench.losses import queue_nce
from ssl_bench.methods.base import EMATeacher, Loss, Parts, Step
from ssl_bench.nn.queue import Queues


class MoCo(EMATeacher):
    """Find the teacher's embedding of the same image among those of earlier batches."""

    def __init__(
        self, parts: Parts, *, momentum: float, momentum_schedule: str, temperature: float, queue: int, symmetrize: str
    ) -> None:
        super().__init__(parts, momentum=momentum, momentum_schedule=momentum_schedule)
        self.require_views(full_size=2, smaller=False)
        self.temperature = temperature
        self.symmetrize = symmetrize
        self.queues = Queues(1, queue, self.width, step=2 * self.recipe.batch_size)

    def loss(self, step: Step) -> Loss:
        q1, q2 = step.predictions  # [n, D]
        k1, k2 = step.targets  # [n, D]
        (queue,) = (queue.rows for queue in self.queues)  # [M, D]
        both = queue_nce(q1, k2, queue, temperature=self.temperature) + queue_nce(
            q2, k1, queue, temperature=self.temperature
        )
        return (both / 2 if self.symmetrize == "mean" else both), {}

    def collect(self, step: Step) -> list[Tensor]:
        return [torch.cat(step.gathered_targets)]  # [2N, D]

    def after_optimizer_step(self) -> None:
        super().after_optimizer_step()
        self.queues.push(self.collected)
