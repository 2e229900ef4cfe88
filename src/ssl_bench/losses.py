"""Losses that two or more methods use: pure functions in float32 that never communicate.

Letters: n images of this rank, N images of the global batch, D embedding width, T temperature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(
    anchors: tuple[Tensor, Tensor],
    candidates: tuple[Tensor, Tensor],
    *,
    first: int,
    temperature: float,
) -> Tensor:
    """Normalised temperature-scaled cross-entropy over 2N candidates (Chen et al. 2020, SimCLR, eq. 1).

    anchors: both views of this rank's images, ``[n, D]`` each, standing at rows ``first`` to ``first + n`` of
    candidates: both views of the global batch, ``[N, D]`` each. An anchor's positive is the other view of its image,
    its negatives all other candidates except its own view of its own image: 2N − 2 of them. Mean over the 2n anchors;
    ln(2N − 1) when all embeddings are equal, 0 for N = 1. With the student's embeddings on both sides it is SimCLR's
    loss, with the teacher's as candidates CLBO's.
    """
    n, size = len(anchors[0]), len(candidates[0])
    query = F.normalize(full_precision(torch.cat(anchors)), dim=1)  # [2n, D]
    key = F.normalize(full_precision(torch.cat(candidates)), dim=1)  # [2N, D]
    row = torch.arange(first, first + n, device=query.device)
    same_view = torch.cat([row, row + size])  # [2n]
    other_view = torch.cat([row + size, row])  # [2n]
    logits = query @ key.T / temperature  # [2n, 2N]
    logits = logits.scatter(1, same_view[:, None], float("-inf"))
    return F.cross_entropy(logits, other_view)


def info_nce(query: Tensor, key: Tensor, *, first: int, temperature: float) -> Tensor:
    """Cross-entropy of each query's own key among all keys (van den Oord et al. 2018).

    query: ``[n, D]``, standing at rows ``first`` to ``first + n`` of key: ``[N, D]``. N − 1 negatives each; ln N when
    all embeddings are equal.
    """
    logits = (
        F.normalize(full_precision(query), dim=1) @ F.normalize(full_precision(key), dim=1).T / temperature
    )  # [n, N]
    return F.cross_entropy(logits, torch.arange(first, first + len(query), device=query.device))


def normalized_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of unit vectors, 2 − 2 cos, in [0, 4] (Grill et al. 2020, BYOL, eq. 2). Both ``[n, D]``."""
    return 2 - 2 * F.cosine_similarity(full_precision(prediction), full_precision(target), dim=1).mean()


def full_precision(x: Tensor) -> Tensor:
    """At least float32: exponentials and normalised rows lose too much in half precision."""
    return x if x.dtype == torch.float64 else x.float()
