"""Made-up embeddings, and losses of contrasting methods written as loops over rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def draws(count: int, n: int = 16, width: int = 32) -> list[Tensor]:
    """So many blocks of embeddings, ``[n, width]`` each."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, width, generator=generator) for _ in range(count)]


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def contrastive(anchors: Sequence[Tensor], candidates: Sequence[Tensor], temperature: float) -> Tensor:
    """Equation 1 of SimCLR: every anchor of two views looks for the other view among all candidates but its own."""
    n, terms = len(anchors[0]), []
    for view, image in itertools.product((0, 1), range(n)):
        anchor = anchors[view][image] / anchors[view][image].norm()
        others = [(w, j) for w in (0, 1) for j in range(n) if (w, j) != (view, image)]
        logits = torch.stack([anchor @ (candidates[w][j] / candidates[w][j].norm()) for w, j in others]) / temperature
        terms.append(logits.logsumexp(0) - logits[others.index((1 - view, image))])
    return torch.stack(terms).mean()


def info_nce_by_rows(query: Tensor, key: Tensor, temperature: float, first: int = 0) -> float:
    """Mean over i of −log exp(q_i·k_j/T) / Σ exp(q_i·k/T) over all keys, with j = i + first and all of unit length."""
    total = 0.0
    for i, q in enumerate(query):
        logits = [cosine(q, k) / temperature for k in key]
        total += math.log(sum(map(math.exp, logits))) - logits[i + first]
    return total / len(query)


def against_queue(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> float:
    """Mean of −log exp(q·k/T) / (exp(q·k/T) + Σ exp(q·row/T)) with all vectors of unit length."""
    total = 0.0
    for q, k in zip(query, key, strict=True):
        positive = math.exp(cosine(q, k) / temperature)
        total -= math.log(positive / (positive + sum(math.exp(cosine(q, row) / temperature) for row in queue)))
    return total / len(query)
