"""VICReg (Bardes, Ponce & LeCun 2022, "Variance-Invariance-Covariance Regularization").

    L = λ s(Z, Z') + μ [v(Z) + v(Z')] + ν [c(Z) + c(Z')]                                            (eq. 6)

s: mean square distance of the views, v: hinge of each column's standard deviation at 1, c: squared covariances off
the diagonal. Statistics are those of the global batch, with gradient through them.

Deviations: as in the released code, s is averaged over columns too and v halved over the two views. The paper trains
by LARS; under SGD the first steps are too large without help, so the method warms up at ``scale=paper`` and clips
the gradient's norm (``sets`` in its configuration).
"""

from __future__ import annotations

from functools import partial

from ssl_bench.losses import vicreg
from ssl_bench.methods.base import Loss, Method, Parts, Step


class VICReg(Method):
    """Pull views together while every column keeps its spread and goes its own way."""

    def __init__(
        self, parts: Parts, *, invariance: float, variance: float, covariance: float, loss_scale: float
    ) -> None:
        super().__init__(parts)
        self.require_views(full_size=2, smaller=False)
        self.terms = partial(vicreg, invariance=invariance, variance=variance, covariance=covariance)
        self.loss_scale = loss_scale

    def loss(self, step: Step) -> Loss:
        z1, z2 = step.gathered_targets  # [N, D]
        return self.loss_scale * self.terms(z1, z2), {}
