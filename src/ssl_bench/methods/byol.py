"""BYOL (Grill et al. 2020, "Bootstrap Your Own Latent").

    ℓ(p, z') = ‖p̂ − ẑ'‖² = 2 − 2⟨p, z'⟩ / (‖p‖ ‖z'‖)                                               (eq. 2)
    ξ ← ηξ + (1 − η)θ                                                                               (eq. 1)

p: the student's prediction of one view, z': the teacher's embedding of the other; both directions.

Deviations: directions are averaged (``symmetrize: mean``), not summed as in the paper, so that a learning rate means
the same for every method; the teacher starts as a copy of the student; heads and optimiser are the shared
ones, unless ``recipe=original``.
"""

from __future__ import annotations

from torch import nn

from ssl_bench.losses import normalized_mse, over_pairs
from ssl_bench.methods.base import EMATeacher, Loss, Parts, Step


class BYOL(EMATeacher):
    """Predict the teacher's embedding of the other view; the predictor has no twin."""

    def __init__(
        self, parts: Parts, *, momentum: float, momentum_schedule: str, predictor: nn.Module, symmetrize: str
    ) -> None:
        super().__init__(parts, momentum=momentum, momentum_schedule=momentum_schedule)
        self.require_views(full_size=2, smaller=True)
        self.predictor = predictor
        self.symmetrize = symmetrize

    def loss(self, step: Step) -> Loss:
        mean = over_pairs(normalized_mse, step.predictions, step.targets)
        return (mean if self.symmetrize == "mean" else len(step.targets) * mean), {}
