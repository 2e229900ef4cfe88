"""A user's own method."""

from __future__ import annotations

from ssl_bench.losses import nt_xent
from ssl_bench.methods.base import Loss, Method, Parts, Step


class Mine(Method):
    """SimCLR by another name."""

    def __init__(self, parts: Parts, *, sharpness: float) -> None:
        super().__init__(parts)
        self.require_views(full_size=2, smaller=False)
        self.sharpness = sharpness

    def loss(self, step: Step) -> Loss:
        anchors, candidates = step.predictions, step.gathered_targets
        first = step.batch.place.first
        return nt_xent(anchors, candidates, first=first, temperature=self.sharpness, normalize=True), {}
