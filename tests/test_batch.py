from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from ssl_bench.batch import Batch, Place, to_device


class Recorded:
    """Stands in for a tensor on ``device`` and writes down how it is copied."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.calls: list[tuple[Any, ...]] = []

    def pin_memory(self) -> Recorded:
        self.calls.append(("pinned",))
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> Recorded:
        self.calls.append((device.type, non_blocking))
        return self


def copies(source: str, target: str) -> list[tuple[Any, ...]]:
    tensor = Recorded(source)
    to_device(tensor, target)  # type: ignore[arg-type]
    return tensor.calls


def test_a_copy_to_cuda_is_pinned_and_does_not_block() -> None:
    assert copies("cpu", "cuda:1") == [("pinned",), ("cuda", True)]
    assert copies("cpu", "meta") == [("meta", True)]


def test_a_copy_to_the_host_blocks_because_its_values_may_be_read_at_once() -> None:
    assert copies("cuda", "cpu") == [("cpu", False)]
    assert copies("cuda", "cuda") == [("cuda", False)]


def test_a_batch_travels_without_what_the_host_draws_numbers_from() -> None:
    sizes = torch.tensor([[3, 4], [5, 6]])
    place = Place(0, 1, 2, 0, 2)
    batch = Batch(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), torch.tensor([5, 3]), place, sizes)
    moved = batch.to("meta")
    assert {moved.images.device.type, moved.labels.device.type, moved.index.device.type} == {"meta"}
    assert moved.sizes is sizes
    assert moved.place is place
    stayed = batch.to("cpu")
    assert all(getattr(stayed, field.name) is getattr(batch, field.name) for field in fields(batch))
