"""Which images were seen last: a list of fixed length in a buffer."""

import torch
from torch import Tensor


def newest_first(visited: Tensor, before: Tensor) -> Tensor:
    """The distinct ids of ``visited``, newest first, then those of ``before`` that are not among them.

    visited: int64 ``[N]``, oldest first, with repeats; before: int64 ``[K]``, newest first, -1 where the list is empty.
    Returns ``[K]`` of the same kind; what does not fit is forgotten.
    """
    line = torch.cat([visited.flip(0), before, before.new_full((1,), -1)])
    ids, place = line.sort(stable=True)  # equal ids stand together, the newest first
    repeated = torch.cat([ids[:1] < 0, (ids[1:] == ids[:-1]) | (ids[1:] < 0)])
    # Shapes do not depend on values, so that an accelerator is not waited for: what is left out goes to the end.
    kept = place.masked_fill(repeated, len(line) - 1).sort().values[: len(before)]
    return line[kept]
