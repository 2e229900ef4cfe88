"""A user's own method."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ssl_bench.batch import Batch
from ssl_bench.distributed import gather
from ssl_bench.losses import nt_xent
from ssl_bench.methods.base import Method


class Mine(Method):
    """SimCLR by another name."""

    def __init__(self, *, sharpness: float, **parts: Any) -> None:
        super().__init__(**parts)
        self.require_views(full_size=2, smaller=False)
        self.sharpness = sharpness

    def loss(self, student: list[Tensor], target: list[Tensor], batch: Batch) -> Tensor:
        candidates = [gather(z) for z in target]  # [N, D]
        return nt_xent(student, candidates, first=batch.place.first, temperature=self.sharpness)
