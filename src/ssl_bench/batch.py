"""What crosses rooms: a batch of images, its place in the run, and how tensors travel to a device.

What travels to an accelerator in a training step, none of it blocking (``to_device``):

- The parameters of all views, as one float32 tensor. ``Views`` draws them on the host from ``place`` and ``sizes``,
  which therefore never travel, and copies them itself: methods and loaders know nothing of them.
- The images, where they are not resident on the device.

Labels and index are 8 bytes per image: a loader that serves a device keeps the labels and the order of an epoch there
and takes each batch's from them. A batch whose tensors are on the device already is not changed by ``Batch.to``, which
moves the batches of loaders that know of no device.

Shapes: n images of this rank, N images of the global batch, C channels, H × W pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


def generator(*key: str | int) -> torch.Generator:
    """Random numbers that belong to ``key`` alone.

    Hashing keeps neighbours apart: seed 1 of epoch 0 shares nothing with seed 0 of epoch 1,
    as it would if the two were added.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class Place(NamedTuple):
    """Where a batch stands in the run: all that a random draw may depend on.

    Draws are made for the whole global batch and sliced, so an image gets the same numbers
    whatever the number of ranks, and a resumed run gets those of an uninterrupted one.
    """

    seed: int
    epoch: int  # 0-based pass over the data
    step: int  # 0-based batch within the pass
    first: int  # position of this rank's first image in the global batch
    size: int  # N

    def uniform(self, rows: int, columns: int, *, draw: int = 0, stream: int = 0) -> Tensor:
        """Independent uniform numbers in [0, 1) for ``rows`` images of this rank, float64 on the CPU.

        ``draw`` counts how often the same batch is looked at again; ``stream`` separates
        independent consumers (one per view). Returns ``[rows, columns]``.
        """
        own = generator(self.seed, self.epoch, self.step, draw, stream)
        numbers = torch.rand(self.size, columns, generator=own, dtype=torch.float64)
        return numbers[self.first : self.first + rows]


@dataclass(slots=True)  # not frozen: Lightning refuses to convert the precision of a frozen one
class Batch:
    """Images of one step on one rank."""

    images: Tensor  # uint8 [n, C, H, W]
    labels: Tensor  # int64 [n], -1 where the image has none
    index: Tensor  # int64 [n], position in the full dataset
    place: Place
    sizes: Tensor | None = None  # int64 [n, 2] on the CPU: height and width of the originals, where images are squashed

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``; place and sizes, from which the CPU draws numbers, stay where they are."""
        return replace(
            self,
            images=to_device(self.images, device),
            labels=to_device(self.labels, device),
            index=to_device(self.index, device),
        )


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on ``device``, by a copy that the host does not wait for; itself where it is there already.

    CUDA copies so from pinned memory only; torch's pool of it uses a block again only after the copies from it have
    ended. Do not write to ``tensor`` afterwards. A copy back to the host does wait: its values may be read at once.
    """
    device = torch.device(device)
    if tensor.device.type != "cpu" or device.type == "cpu":
        return tensor.to(device)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
