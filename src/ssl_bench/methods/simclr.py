"""SimCLR (Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations").

    ℓ(i, j) = −log exp(sim(zᵢ, zⱼ)/T) / Σ_{k ≠ i} exp(sim(zᵢ, z_k)/T)                               (eq. 1)

averaged over both directions of every positive pair: 2N anchors, each against 2N − 1 candidates.

Deviations: plain SGD and the shared heads instead of LARS (``recipe=original``) and BatchNorm on the output;
the mean over the 2N anchors where the released code sums the two directions.
"""

from __future__ import annotations

from typing import Any

from ssl_bench.losses import nt_xent
from ssl_bench.methods.base import Loss, Method, Step


class SimCLR(Method):
    """Every image against every other image of the global batch; no teacher."""

    def __init__(self, *, temperature: float, **parts: Any) -> None:
        super().__init__(**parts)
        self.require_views(full_size=2, smaller=True)
        self.temperature = temperature

    def loss(self, step: Step) -> Loss:
        # The gathered carry gradient: other ranks' anchors push on this rank's candidates.
        anchors, candidates = step.predictions, step.gathered_targets
        return nt_xent(anchors, candidates, first=step.batch.place.first, temperature=self.temperature), {}
