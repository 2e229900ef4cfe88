"""All images of one split, in memory.

Shapes: M images of the split, C channels, H × W pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """What a reader hands on: pixels as they stand in the files, and labels."""

    images: Tensor  # u8 [M, C, H, W]
    labels: Tensor  # int64 [M], -1 where the image has none
    skipped: tuple[str, ...] = ()  # names of files that could not be read, left out as asked for

    def __len__(self) -> int:
        return len(self.images)

    def digest(self) -> str:
        """SHA-256 over shape, type and every byte of images and labels: equal digests, equal data."""
        sha = hashlib.sha256()
        for part in (self.images, self.labels):
            sha.update(f"{part.dtype} {tuple(part.shape)} ".encode())
            sha.update(part.contiguous().numpy().data)  # a view of the memory: hashed without a copy
        return sha.hexdigest()


def repeats(images: Images, others: Images) -> int:
    """How many of ``others`` equal one of ``images`` pixel for pixel."""

    def keys(split: Images) -> list[bytes]:
        return [hashlib.blake2b(row, digest_size=16).digest() for row in split.images.contiguous().numpy()]

    known = set(keys(images))
    return sum(key in known for key in keys(others))
