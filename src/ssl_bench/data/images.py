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
    names: tuple[str, ...] = ()  # of the files, where each image has one

    def __len__(self) -> int:
        return len(self.images)

    def name(self, row: int) -> str:
        """What to call an image in a sentence."""
        return self.names[row] if self.names else f"image {row}"

    def digest(self) -> str:
        """SHA-256 over shape, type and every byte of images and labels: equal digests, equal data."""
        sha = hashlib.sha256()
        for part in (self.images, self.labels):
            sha.update(f"{part.dtype} {tuple(part.shape)} ".encode())
            sha.update(part.contiguous().numpy().data)  # a view of the memory: hashed without a copy
        return sha.hexdigest()


def keys(images: Images) -> list[bytes]:
    """A key for each image; equal keys, equal pixels."""
    return [hashlib.blake2b(row, digest_size=16).digest() for row in images.images.contiguous().numpy()]


def repeats(images: Images, others: Images) -> int:
    """How many of ``others`` equal one of ``images`` pixel for pixel."""
    return len(twins(keys(images), keys(others)))


def twins(known: list[bytes], others: list[bytes]) -> list[tuple[int, int]]:
    """Rows of equal images: of ``known`` and of ``others``, one pair for each of ``others`` that is known."""
    first = {key: row for row, key in reversed([*enumerate(known)])}
    return [(first[key], row) for row, key in enumerate(others) if key in first]


def contradictions(known: list[bytes], labels: Tensor) -> list[tuple[int, int]]:
    """Rows of equal images with different labels: each with the first of its kind; -1 contradicts none."""
    first: dict[bytes, tuple[int, int]] = {}
    found = []
    for row, (key, label) in enumerate(zip(known, labels.tolist(), strict=True)):
        if label >= 0:
            other, said = first.setdefault(key, (row, label))
            if said != label:
                found.append((other, row))
    return found
