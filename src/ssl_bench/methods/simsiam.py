"""SimSiam (Chen & He 2021, "Exploring Simple Siamese Representation Learning").

    L = ½ D(p₁, stopgrad(z₂)) + ½ D(p₂, stopgrad(z₁)),   D(p, z) = −⟨p, z⟩ / (‖p‖ ‖z‖)              (eqs. 1–4)

p: the prediction of one view, z: the projector's output of the other. No teacher, no negatives: the stopped gradient,
the predictor and the BatchNorm without scale at the projector's end keep it from collapsing. −1 at best.

Deviations: the common protocol's two-layer projector and widths; ``predictor_lr: constant`` keeps the predictor's
learning rate from decaying, as the released code does.
"""

from __future__ import annotations

from torch import nn

from ssl_bench.losses import normalized_mse, over_pairs
from ssl_bench.methods.base import Loss, Method, Parts, Step


class SimSiam(Method):
    """Predict the other view's embedding, through which no gradient flows."""

    def __init__(self, parts: Parts, *, predictor: nn.Module, predictor_lr: str) -> None:
        super().__init__(parts)
        self.require_views(full_size=2, smaller=True)
        self.predictor = predictor
        self.predictor_lr_constant = predictor_lr == "constant"

    def loss(self, step: Step) -> Loss:
        # The mean of −cos, from that of 2 − 2 cos.
        return over_pairs(normalized_mse, step.predictions, [z.detach() for z in step.targets]) / 2 - 1, {}
