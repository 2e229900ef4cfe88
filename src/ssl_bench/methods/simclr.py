"""SimCLR (Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations").

    ℓ(i, j) = −log exp(sim(zᵢ, zⱼ)/T) / Σ_{k ≠ i} exp(sim(zᵢ, z_k)/T)                               (eq. 1)

averaged over both directions of every positive pair: 2N anchors, each against 2N − 1 candidates. The losses that the
paper compares with it (table 2) are ``objective=logistic`` and ``objective=margin``, each with all negatives or with
the semi-hard one.

Deviations: the shared optimiser and heads instead of LARS (``recipe=original``) and BatchNorm on the output;
the mean over the 2N anchors where the released code sums the two directions. The semi-hard negative is one, the most
similar that is less similar than the positive; the paper states no more of it than that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from ssl_bench.losses import margin_triplet, nt_logistic, nt_xent
from ssl_bench.methods.base import Loss, Method, Parts, Step


class SimCLR(Method):
    """Every image against every other image of the global batch; no teacher. Options: ``conf/method/simclr.yaml``."""

    def __init__(self, parts: Parts, *, objective: str, temperature: float, margin: float, normalize: bool) -> None:
        super().__init__(parts)
        self.require_views(full_size=2, smaller=True)
        self.contrast = _contrast(objective, temperature=temperature, margin=margin, normalize=normalize)

    def loss(self, step: Step) -> Loss:
        # The gathered carry gradient: other ranks' anchors push on this rank's candidates.
        anchors, candidates = step.predictions, step.gathered_targets
        return self.contrast(anchors, candidates, first=step.batch.place.first), {}


def _contrast(objective: str, *, temperature: float, margin: float, normalize: bool) -> Callable[..., Tensor]:
    """The loss that ``objective`` names, of anchors and candidates."""
    losses = {
        "nt_xent": partial(nt_xent, temperature=temperature),
        "logistic": partial(nt_logistic, temperature=temperature, semi_hard=False),
        "logistic_semi_hard": partial(nt_logistic, temperature=temperature, semi_hard=True),
        "margin": partial(margin_triplet, margin=margin, semi_hard=False),
        "margin_semi_hard": partial(margin_triplet, margin=margin, semi_hard=True),
    }
    return partial(losses[objective], normalize=normalize)
