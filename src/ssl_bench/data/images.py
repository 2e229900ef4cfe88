"""All images of one split, in memory or mapped from a file.

Shapes: M images of the split, C channels, H × W pixels.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

HASH_BYTES = 16  # of an image


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """What a reader hands on: pixels as they stand in the files, and labels.

    Pictures that come in all sizes are squashed to one; ``sizes`` and ``hashes`` then hold where they come from.
    """

    images: Tensor  # uint8 [M, C, H, W]
    labels: Tensor  # int64 [M], -1 where the image has none
    skipped: tuple[str, ...] = ()  # names of files that could not be read, left out as asked for
    sizes: Tensor | None = None  # int64 [M, 2], height and width of the originals; None: images are as they were
    hashes: Tensor | None = None  # uint8 [M, HASH_BYTES], hash_of each image, where it was made on the way
    names: tuple[str, ...] = ()  # of the files, where each image has one

    def __len__(self) -> int:
        return len(self.images)

    def name(self, row: int) -> str:
        """What to call an image in a sentence."""
        return self.names[row] if self.names else f"image {row}"

    def digest(self) -> str:
        """SHA-256 over shape, type and every byte of images, labels and sizes: equal digests, equal data.

        Images that were hashed on the way in go by their hashes: those in a file need not be read again for it.
        """
        sha = hashlib.sha256()
        parts = [self.images, self.labels]
        if self.hashes is not None:
            sha.update(f"{self.images.dtype} {tuple(self.images.shape)} by hash ".encode())
            parts = [self.hashes, self.labels]
        if self.sizes is not None:
            parts.append(self.sizes)
        for part in parts:
            sha.update(f"{part.dtype} {tuple(part.shape)} ".encode())
            sha.update(part.contiguous().numpy().data)  # a view of the memory: hashed without a copy
        return sha.hexdigest()


def hash_of(image: NDArray[np.uint8]) -> bytes:
    """The first HASH_BYTES of SHA-256 over the pixels of an image, uint8 ``[C, H, W]`` and contiguous."""
    return hashlib.sha256(image.data).digest()[:HASH_BYTES]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Images that are there twice: how many, and a phrase for each kind of them that there is."""

    test_in_train: int
    contradictory: int  # images of train that equal one before them, of a different class
    of_test: str
    of_train: str


def repeats(train: Images, test: Images) -> Repeats:
    """Which test images are in train, and which images of train contradict each other."""
    known, of_test, of_train = keys(train), "", ""
    doubled, contradictory = twins(known, keys(test)), contradictions(known, train.labels)
    if doubled:
        row, other = doubled[0]
        such = f"such as {test.name(other)} and {train.name(row)} of train"
        of_test = f"{len(doubled):,} of {len(test):,} test images are in train as well, pixel for pixel, {such}"
    if contradictory:
        such = " and ".join(map(train.name, contradictory[0]))
        of_train = f"{len(contradictory):,} training image(s) repeat an earlier one under another class, such as {such}"
    return Repeats(len(doubled), len(contradictory), of_test, of_train)


def keys(images: Images) -> list[bytes]:
    """A key for each image; equal keys, equal pixels."""
    if images.hashes is not None:
        return [bytes(row) for row in images.hashes.numpy()]
    return [hash_of(row) for row in images.images.contiguous().numpy()]


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
            other, class_of_other = first.setdefault(key, (row, label))
            if class_of_other != label:
                found.append((other, row))
    return found
