"""MoBY (Xie et al. 2021, "Self-Supervised Learning with Swin Transformers"): MoCo's loss on BYOL's networks.

    L = ℓ(p₁, k₂, Q₂) + ℓ(p₂, k₁, Q₁),   ℓ(p, k, Q) = −log exp(p·k/T) / (exp(p·k/T) + Σ_{q ∈ Q} exp(p·q/T))   (eq. 1)
    ξ ← ηξ + (1 − η)θ

p: the student's prediction of one view, k: the teacher's embedding of the other, all of unit length. Q₁ holds earlier
keys of view 1, Q₂ of view 2: a prediction meets one key and negatives of the same view.

Deviations: directions are averaged (``symmetrize: mean``), not summed; a ResNet under the common protocol's optimiser
in place of a transformer under AdamW with asymmetric drop path; the teacher moves after the optimiser step.
"""

from __future__ import annotations

from torch import Tensor, nn

from ssl_bench.losses import queue_nce
from ssl_bench.methods.base import EMATeacher, Loss, Parts, Step
from ssl_bench.nn.queue import Queues


class MoBY(EMATeacher):
    """Predict the teacher's embedding of the other view, distinguished from earlier keys of that view."""

    def __init__(
        self,
        parts: Parts,
        *,
        momentum: float,
        momentum_schedule: str,
        predictor: nn.Module,
        temperature: float,
        queue: int,
        symmetrize: str,
    ) -> None:
        super().__init__(parts, momentum=momentum, momentum_schedule=momentum_schedule)
        self.require_views(full_size=2, smaller=False)
        self.predictor = predictor
        self.temperature = temperature
        self.symmetrize = symmetrize
        self.queues = Queues(2, queue, self.width, step=self.recipe.batch_size)

    def loss(self, step: Step) -> Loss:
        p1, p2 = step.predictions  # [n, D]
        k1, k2 = step.targets  # [n, D]
        queue1, queue2 = (queue.rows for queue in self.queues)
        both = queue_nce(p1, k2, queue2, temperature=self.temperature) + queue_nce(
            p2, k1, queue1, temperature=self.temperature
        )
        return (both / 2 if self.symmetrize == "mean" else both), {}

    def collect(self, step: Step) -> list[Tensor]:
        return step.gathered_targets  # [N, D]

    def after_optimizer_step(self) -> None:
        super().after_optimizer_step()
        self.queues.push(self.collected)
