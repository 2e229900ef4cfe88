"""Made-up embeddings, and losses of contrasting methods written as loops over rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def draws(count: int, n: int = 16, width: int = 32) -> list[Tensor]:
    """So many blocks of embeddings, ``[n, width]`` each."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, width, generator=generator) for _ in range(count)]


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def against_queue(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> float:
    """Mean of −log exp(q·k/T) / (exp(q·k/T) + Σ exp(q·row/T)) with all vectors of unit length."""
    total = 0.0
    for q, k in zip(query, key, strict=True):
        positive = math.exp(cosine(q, k) / temperature)
        total -= math.log(positive / (positive + sum(math.exp(cosine(q, row) / temperature) for row in queue)))
    return total / len(query)
