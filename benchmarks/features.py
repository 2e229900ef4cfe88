"""Features made up on the spot that resemble a trained network's: overlapping clusters, correlated, not negative."""

from __future__ import annotations

import torch
from torch import Tensor

CLASSES = 10
CLUSTERS = 100  # several per class, so that classes are no balls


def clustered(rows: int, width: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Features ``[rows, width]`` and their labels ``[rows]``; other seeds give other rows of the same clusters.

    Directions differ in strength as 1, 1/2, 1/3, …: without that, scikit-learn's solver is done after a few
    iterations, which on features of a network it never is.
    """
    fixed = torch.Generator().manual_seed(0)
    centres = torch.randn(CLUSTERS, width, generator=fixed)
    mixing = torch.randn(width, width, generator=fixed) / torch.arange(1, width + 1)[:, None]
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.randint(CLUSTERS, (rows,), generator=generator)
    points = centres[cluster] + torch.randn(rows, width, generator=generator)
    return (points @ mixing).relu(), cluster % CLASSES


def gaussian(rows: int, width: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Features ``[rows, width]`` without any structure, and labels ``[rows]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator), torch.randint(CLASSES, (rows,), generator=generator)
