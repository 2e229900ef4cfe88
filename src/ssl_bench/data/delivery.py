"""How the images of a split reach the device that trains: three ways to the same batches.

The CPU takes them from memory. An accelerator takes them from its own memory, where they live if they fit there. Else
a thread gathers each batch into host memory that is kept for it, and it is copied while the batch before it is trained
on. Labels and positions of a whole pass travel at once.

Shapes: n images of a batch, M of the split, C channels, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import torch
from rich.filesize import decimal
from torch import Tensor

from ssl_bench.batch import to_device
from ssl_bench.data.images import Images

SHARE = 0.4  # of an accelerator's free memory that images may take unasked
BUFFERS = 2  # one is filled while the other is copied

Delivered = tuple[Tensor, Tensor, Tensor]  # images uint8 [n, C, H, W], labels int64 [n], positions int64 [n]


class Delivery(Protocol):
    """The images of one split, for the loaders of all its parts."""

    def batches(self, rows: Sequence[Tensor]) -> Iterator[Delivered]:
        """One batch for each of ``rows``, int64 positions ``[n]`` on the CPU, in turn."""
        ...


class Resident:
    """Batches of images that live on ``device``. Raises torch.OutOfMemoryError where they do not fit."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self.images, self.labels = images.images.to(device), images.labels.to(device)

    def batches(self, rows: Sequence[Tensor]) -> Iterator[Delivered]:
        for chosen in _moved(rows, self.images.device):
            # index_select, because indexing with a tensor takes three to ten times as long
            yield self.images.index_select(0, chosen), self.labels.index_select(0, chosen), chosen


class Brought:
    """Batches of images that live on the host, on an accelerator.

    All that happens to the device is done by the thread that asks for batches; the other one only gathers. Nothing is
    left over from a pass that is broken off but what is being gathered just then.
    """

    def __init__(self, images: Images, device: torch.device, copier: Copier | None = None) -> None:
        self.images, self.labels = images.images, images.labels.to(device)
        self.copier = copier or Copier(device)
        # It waits for events of this device, and would else begin to use the first one.
        own = partial(torch.cuda.set_device, device) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gather", initializer=own)
        self._rings: list[list[Buffer]] = []  # of passes that have ended

    def batches(self, rows: Sequence[Tensor]) -> Iterator[Delivered]:
        coming: tuple[Sent, Tensor] | None = None
        for buffer, chosen in zip(self._gathered(rows), _moved(rows, self.labels.device), strict=True):
            sent = buffer.send(len(chosen))
            if coming:
                yield self._arrived(*coming)
            coming = sent, chosen
        if coming:
            yield self._arrived(*coming)

    def _arrived(self, sent: Sent, chosen: Tensor) -> Delivered:
        return sent.arrived(), self.labels.index_select(0, chosen), chosen

    def _gathered(self, rows: Sequence[Tensor]) -> Iterator[Buffer]:
        """Buffers that hold a batch, each while the next one is filled."""
        most = max(map(len, rows), default=0)
        ring = self._rings.pop() if self._rings else [Buffer(self.copier) for _ in range(BUFFERS)]
        tasks = (
            self._thread.submit(ring[number % BUFFERS].fill, self.images, chosen, most)
            for number, chosen in enumerate(rows)
        )
        task = next(tasks, None)
        while task:
            filled, task = task.result(), next(tasks, None)
            yield filled
        self._rings.append(ring)


class Sent:
    """A batch on its way to the device; without an event of another stream it is there."""

    def __init__(self, tensor: Tensor, copied: torch.cuda.Event | None = None) -> None:
        self.tensor = tensor
        self.copied = copied

    def arrived(self) -> Tensor:
        """The batch, for what is computed from now on."""
        if self.copied is not None:
            current = torch.cuda.current_stream(self.tensor.device)
            current.wait_event(self.copied)
            self.tensor.record_stream(current)  # it was allocated for the other stream, which must not take it back yet
        return self.tensor

    def wait(self) -> None:
        """Return when the host's memory may be written again."""
        if self.copied is not None:
            self.copied.synchronize()


class Copier:
    """Copies from host memory to ``device``; to CUDA from pinned memory, beside what the current stream computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def memory(self, shape: Sequence[int]) -> Tensor:
        """Host memory to copy from, uint8."""
        return torch.empty(*shape, dtype=torch.uint8, pin_memory=self.stream is not None)

    def send(self, host: Tensor) -> Sent:
        if self.stream is None:
            return Sent(host.to(self.device, non_blocking=True, copy=True))
        with torch.cuda.stream(self.stream):
            return Sent(host.to(self.device, non_blocking=True), self.stream.record_event())


class Buffer:
    """Host memory for a batch, kept from batch to batch."""

    def __init__(self, copier: Copier) -> None:
        self.copier = copier
        self.memory: Tensor | None = None
        self.sent: Sent | None = None

    def fill(self, images: Tensor, rows: Tensor, most: int) -> Buffer:
        """Gather ``rows``; ``most``: the rows of the largest batch. Returns itself."""
        if self.sent:
            self.sent.wait()
        if self.memory is None or len(self.memory) < most:
            self.memory = self.copier.memory((most, *images.shape[1:]))
        torch.index_select(images, 0, rows, out=self.memory[: len(rows)])
        return self

    def send(self, count: int) -> Sent:
        """Start the copy of the first ``count`` images."""
        assert self.memory is not None
        self.sent = self.copier.send(self.memory[:count])
        return self.sent


def _moved(rows: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """``rows`` on ``device``, by one copy."""
    return torch.split(to_device(torch.cat(list(rows)), device), [len(chosen) for chosen in rows]) if rows else ()


def free_memory(device: torch.device) -> int | None:
    """Bytes that nobody uses, or that PyTorch keeps from earlier runs; None where it is not known."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def deliveries(
    splits: Mapping[str, Images], device: torch.device, resident: str
) -> tuple[dict[str, Delivery], str | None]:
    """How each split reaches ``device``, and a sentence if its images were to live there and do not fit.

    resident: ``true``, ``false``, or ``auto``: if they take less than SHARE of the memory that is free.
    """
    if device.type == "cpu":
        return {name: Resident(images, device) for name, images in splits.items()}, None
    size, free = sum(images.images.nbytes for images in splits.values()), free_memory(device)
    if resident == "true" or (resident == "auto" and (free is None or size <= SHARE * free)):
        try:
            return {name: Resident(images, device) for name, images in splits.items()}, None
        except torch.OutOfMemoryError:
            pass
    brought: dict[str, Delivery] = {name: Brought(images, device) for name, images in splits.items()}
    if resident == "false":
        return brought, None
    room = "" if free is None else f", where {decimal(free)} are free"
    return brought, (
        f"the images, {decimal(size)}, do not fit on {device}{room}: they stay in host memory, and each batch is "
        "copied while the one before it is trained on. dataset.resident=false chooses so beforehand."
    )
