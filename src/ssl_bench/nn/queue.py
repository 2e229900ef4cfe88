"""A ring of the newest keys: MoCo's queue."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_bench.conditions import require_whole_pushes


class Queue(nn.Module):
    """The last M unit vectors pushed, first in first out (He et al. 2020, MoCo, section 3.2).

    It starts with random directions. Every rank pushes the gathered keys of all ranks, so all hold the same.

    Args:
        length: M, a multiple of ``step``: a partly overwritten batch would age unevenly.
        width: D.
        step: rows of one push.
    """

    rows: Tensor  # [M, D], unit length

    def __init__(self, length: int, width: int, *, step: int) -> None:
        super().__init__()
        require_whole_pushes(length, step)
        self.register_buffer("rows", F.normalize(torch.randn(length, width), dim=1))
        self.pushed = 0  # rows since the start

    @property
    def full(self) -> bool:
        """Whether no random row is left."""
        return self.pushed >= len(self.rows)

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Overwrite the oldest rows by ``rows`` ``[step, D]`` of any norm."""
        first = self.pushed % len(self.rows)
        self.rows[first : first + len(rows)] = F.normalize(rows, dim=1)
        self.pushed += len(rows)

    def get_extra_state(self) -> dict[str, int]:
        return {"pushed": self.pushed}

    def set_extra_state(self, state: Any) -> None:
        self.pushed = state["pushed"]


class Queues(nn.ModuleList):
    """Several queues that are filled in step, such as one for each view."""

    def __init__(self, count: int, length: int, width: int, *, step: int) -> None:
        super().__init__(Queue(length, width, step=step) for _ in range(count))

    def __iter__(self) -> Iterator[Queue]:
        return cast(Iterator[Queue], super().__iter__())

    def push(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Enqueue the keys of some batches, oldest first: ``[step, D]`` for each queue."""
        for keys in batches:
            for queue, rows in zip(self, keys, strict=True):
                queue.push(rows)
