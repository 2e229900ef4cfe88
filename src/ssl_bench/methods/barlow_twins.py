"""Barlow Twins (Zbontar et al. 2021, "Self-Supervised Learning via Redundancy Reduction").

    L = Σᵢ (1 − Cᵢᵢ)² + λ Σᵢ Σ_{j ≠ i} Cᵢⱼ²                                                        (eq. 1)
    C: cross-correlation of the two views' embeddings over the batch                                (eq. 2)

The batch is the global one: statistics and C are those of all devices' images, and gradient flows through both.

Deviations: the common protocol's widths and optimiser, and a gradient whose norm is clipped (``sets`` in its
configuration); with a small width D the second sum has few terms, and ``off_diagonal`` (λ) may be chosen larger than
the paper's 0.005.
"""

from __future__ import annotations

from ssl_bench.losses import barlow_twins
from ssl_bench.methods.base import Loss, Method, Parts, Step


class BarlowTwins(Method):
    """Make the views' embeddings agree column by column, and the columns independent."""

    def __init__(self, parts: Parts, *, off_diagonal: float, loss_scale: float) -> None:
        super().__init__(parts)
        self.require_views(full_size=2, smaller=False)
        self.off_diagonal = off_diagonal
        self.loss_scale = loss_scale

    def loss(self, step: Step) -> Loss:
        z1, z2 = step.gathered_targets  # [N, D]
        return self.loss_scale * barlow_twins(z1, z2, off_diagonal=self.off_diagonal), {}
