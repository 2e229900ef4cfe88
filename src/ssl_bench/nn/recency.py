"""Who was looked at last: a list of fixed length in a buffer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def newest_first(visited: Tensor, before: Tensor) -> Tensor:
    """The distinct ids of ``visited``, newest first, then those of ``before`` that are not among them.

    visited: int64 ``[N]``, oldest first, with repeats; before: int64 ``[K]``, newest first, -1 where nobody stands.
    Returns ``[K]`` of the same kind; who does not fit is forgotten.
    """
    line = torch.cat([visited.flip(0), before])
    ids, entry = torch.unique(line, return_inverse=True)
    places = torch.arange(len(line), device=line.device)
    first = torch.full_like(ids, len(line)).scatter_reduce(0, entry, places, "amin")  # where each id stands first
    kept = first[ids >= 0].sort().values[: len(before)]
    return F.pad(line[kept], (0, len(before) - len(kept)), value=-1)
