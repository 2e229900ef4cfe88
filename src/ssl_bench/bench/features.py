"""Features made up on the spot: clusters that overlap, as a trained network's do."""

from __future__ import annotations

import torch
from torch import Tensor

CLASSES = 10
CLUSTERS = 100  # several per class, so that classes are no balls


def clustered(rows: int, width: int, *, seed: int, noise: float) -> tuple[Tensor, Tensor]:
    """Features ``[rows, width]`` around cluster centres, and their labels ``[rows]``; centres do not depend on seed."""
    centres = torch.randn(CLUSTERS, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.randint(CLUSTERS, (rows,), generator=generator)
    return centres[cluster] + noise * torch.randn(rows, width, generator=generator), cluster % CLASSES


def gaussian(rows: int, width: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Features ``[rows, width]`` without any structure, and labels ``[rows]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator), torch.randint(CLASSES, (rows,), generator=generator)
