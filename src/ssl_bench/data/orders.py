"""Which image comes when: pure functions of (seed, epoch)."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(*words: str | int) -> torch.Generator:
    """Random numbers that belong to ``words`` alone.

    Hashing keeps neighbours apart: seed 1 of epoch 0 shares nothing with seed 0 of epoch 1,
    as it would if the two were added.
    """
    digest = hashlib.blake2b(repr(words).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def permutation(size: int, seed: int, epoch: int) -> Tensor:
    """Every position in [0, size) once, in the random order of this seed and epoch; int64 ``[size]``."""
    return torch.randperm(size, generator=generator("permutation", seed, epoch))


def sequential(size: int) -> Tensor:
    """Every position in [0, size) once, in turn; int64 ``[size]``."""
    return torch.arange(size)
