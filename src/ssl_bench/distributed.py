"""What ranks tell each other: gather and mean with gradient. The only importer of torch.distributed.

DistributedDataParallel averages parameter gradients over ranks. A loss that reads rows of other ranks
gets the gradient one process would compute on the global batch when the backward of the gather SUMS
what every rank owes a row; averaging there, or cutting the gradient, would make it too small.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        return _all_gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)  # autograd may need its own once more
        dist.all_reduce(gradient)
        first = rank() * ctx.rows
        return gradient[first : first + ctx.rows]


def _all_gather(rows: Tensor) -> Tensor:
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather(rows: Tensor) -> Tensor:
    """Rows of every rank in rank order, ``[n, ...]`` → ``[N, ...]``; every rank must hold equally many.

    Differentiable: the gradient of a rank's rows is the sum of what all ranks' losses owe them.
    """
    if world_size() == 1:
        return rows
    if rows.requires_grad:
        gathered: Tensor = _Gather.apply(rows)
        return gathered
    return _all_gather(rows)


@torch.no_grad()
def mean(values: Tensor) -> Tensor:
    """The mean over ranks of a tensor that has the same shape on each; carries no gradient."""
    if world_size() == 1:
        return values
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / world_size()
