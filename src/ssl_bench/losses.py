"""Losses that two or more methods use: pure functions in float32 that never communicate.

Letters: n images of this rank, N images of the global batch, V views, G of them full-size, D embedding width,
T temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(
    anchors: Sequence[Tensor],
    candidates: Sequence[Tensor],
    *,
    first: int,
    temperature: float,
) -> Tensor:
    """Normalised temperature-scaled cross-entropy over the other images (Chen et al. 2020, SimCLR, eq. 1).

    anchors: V views of this rank's images, ``[n, D]`` each, standing at rows ``first`` to ``first + n`` of
    candidates: the G full-size views of the global batch, ``[N, D]`` each; the first G anchors are views of the same
    pictures. Every anchor is attracted by each other full-size view of its image in turn, against all candidates of
    other images: G(N − 1) negatives. Mean over these pairs and rows. For V = G = 2, the paper's case,
    ln(2N − 1) when all embeddings are equal, 0 for N = 1. With the student's embeddings on both sides it is SimCLR's
    loss, with the teacher's as candidates CLBO's.
    """
    n, size, count = len(anchors[0]), len(candidates[0]), len(candidates)
    query = F.normalize(full_precision(torch.cat(list(anchors))), dim=1)  # [Vn, D]
    key = F.normalize(full_precision(torch.cat(list(candidates))), dim=1)  # [GN, D]
    logits = (query @ key.T / temperature).view(len(anchors), n, count * size)  # [V, n, GN]
    own = torch.arange(first, first + n, device=query.device)[:, None] + size * torch.arange(
        count, device=query.device
    )  # [n, G]: where an image's own candidates stand
    losses = []
    for positive in range(count):
        others = [view for view in range(len(anchors)) if view != positive]
        hidden = own[:, [view for view in range(count) if view != positive]]  # own, but not the one looked for
        masked = logits[others].scatter(2, hidden.expand(len(others), -1, -1), float("-inf"))
        losses.append(F.cross_entropy(masked.flatten(0, 1), own[:, positive].repeat(len(others))))
    return torch.stack(losses).mean()


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


def over_pairs(loss: Callable[[Tensor, Tensor], Tensor], student: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Mean of ``loss(student[v], target[i])`` over all full-size views i and all views v ≠ i of the same images."""
    pairs = [(v, i) for i in range(len(target)) for v in range(len(student)) if v != i]
    return torch.stack([loss(student[v], target[i]) for v, i in pairs]).mean()


def full_precision(x: Tensor) -> Tensor:
    """At least float32: exponentials and normalised rows lose too much in half precision."""
    return x if x.dtype == torch.float64 else x.float()
