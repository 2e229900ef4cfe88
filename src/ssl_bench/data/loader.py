"""Batches of an order, for one rank.

Shapes: N images of the global batch, n of them on this rank, C channels, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_bench.batch import Batch, Place
from ssl_bench.conditions import require_a_batch, require_equal_shares
from ssl_bench.data.delivery import Delivery, Resident
from ssl_bench.data.images import Images


@dataclass(eq=False, repr=False)
class BatchLoader:
    """Shows the images of ``index`` once per epoch, in the order of that epoch.

    The global batch b is entries [b·N, (b+1)·N) of the order; rank r of R takes rows [r·N/R, (r+1)·N/R) of it,
    so that the ranks together see exactly what one rank alone would. There are no worker processes: gathering
    uint8 images from memory, or from a mapped file, takes far less time than a training step.

    The loader knows its position, and moves it when it hands out a batch, however far ahead the delivery is: a state
    saved after batch b resumes with batch b + 1, and one saved after the last batch with the next epoch. A pass that
    is broken off is over, the next one starts a new epoch; only a loaded state resumes in the middle.

    Raises:
        UserError: with ``drop_last``, the ranks would get batches of different size, or nobody a batch.
    """

    images: Images  # the split to take from
    index: Tensor  # positions in the split that may be seen, int64 [K]
    order: Callable[[int], Tensor]  # epoch → positions in ``index``, as many as an epoch's batches hold or more, int64
    batch_size: int  # N
    rank: int  # r, from 0
    world: int  # R
    seed: int  # the run's; it marks the place of each batch
    # Leave out the images that do not fill a batch, as training must. Otherwise the last batch is smaller, and its rows
    # fall to the ranks as evenly as they can (to some perhaps none).
    drop_last: bool
    delivery: Delivery | None = None  # how the images reach the device that trains. None: batches stay on the CPU

    def __post_init__(self) -> None:
        if self.drop_last:
            require_equal_shares(self.batch_size, self.world)
            require_a_batch(self.batch_size, len(self.index))
        self._delivery = self.delivery or Resident(self.images, torch.device("cpu"))
        self.epoch = 0  # of the next batch
        self.step = 0
        self._underway = False  # batches of this epoch have been handed out, and there are more

    def __len__(self) -> int:
        """Batches per epoch, on every rank."""
        return len(self.index) // self.batch_size if self.drop_last else -(-len(self.index) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator does nothing before its first batch is asked for: Lightning calls iter() more often than it reads.
        if self._underway:
            self.set_epoch(self.epoch + 1)
        epoch, last = self.epoch, len(self) - 1
        for step, batch in enumerate(self._batches(epoch, range(self.step, len(self))), start=self.step):
            self.epoch, self.step = (epoch, step + 1) if step < last else (epoch + 1, 0)
            self._underway = step < last
            yield batch

    def at(self, epoch: int, step: int) -> Batch:
        """The batch of ``step`` in ``epoch``; the loader's position stays where it is."""
        (batch,) = self._batches(epoch, range(step, step + 1))
        return batch

    def _batches(self, epoch: int, steps: range) -> Iterator[Batch]:
        """This rank's share of the batches of ``steps``, whatever the loader's position."""
        positions = self.index[self.order(epoch)]
        rows, places = [], []
        for step in steps:
            whole = positions[step * self.batch_size : (step + 1) * self.batch_size]
            first, end = (rank * len(whole) // self.world for rank in (self.rank, self.rank + 1))
            rows.append(whole[first:end])
            places.append(Place(seed=self.seed, epoch=epoch, step=step, first=first, size=len(whole)))
        sizes = self.images.sizes
        for chosen, place, tensors in zip(rows, places, self._delivery.batches(rows), strict=True):
            images, labels, index = tensors
            yield Batch(images, labels, index, place, None if sizes is None else sizes.index_select(0, chosen))

    def state_dict(self) -> dict[str, int]:
        """The position of the next batch; the same on every rank."""
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Resume where ``state_dict`` was taken."""
        self.epoch, self.step = state_dict["epoch"], state_dict["step"]
        self._underway = False

    def set_epoch(self, epoch: int) -> None:
        """Begin ``epoch``, unless the loader is in it already."""
        if epoch != self.epoch:
            self.load_state_dict({"epoch": epoch, "step": 0})

    # Lightning restores a loader's state only within an epoch. From one epoch to the next it calls set_epoch of the
    # loader's sampler, which also holds where limit_train_batches ends epochs early.
    batch_sampler = None

    @property
    def sampler(self) -> BatchLoader:
        return self
