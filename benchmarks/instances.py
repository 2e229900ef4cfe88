"""What a class per image costs PIC: a step with many instances against the same step with 10,000.

The softmax runs over the batch's classes and the 4,096 visited last. Images come round on a circle in a random order,
so every step brings up to date as many rows as the batch has, lying anywhere in memory.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import torch

from benchmarks.bare import default_loop
from benchmarks.knn import MEMORY, growth
from benchmarks.measurement import Measurement, Target, alternate
from benchmarks.synthetic import batches, configuration, pictures, synthetic_dataset
from ssl_bench.batch import Batch
from ssl_bench.methods.base import Step
from ssl_bench.methods.pic import PIC
from ssl_bench.training import build

STEPS = 100_000  # of the run whose learning rates are known
FLAT = Target(1.15, at_least=False)


@dataclass(frozen=True)
class Case:
    """A step's sizes; the backbone is a ResNet-18 of width 16 with a stride-2 stem on 28 px."""

    instances: int
    negatives: int  # K
    batch_size: int
    width: int  # D

    def __str__(self) -> str:
        return f"{self.instances:,} instances × {self.width}, batch {self.batch_size}, K = {self.negatives:,}"


def measure(repeats: int, *, small: bool, device: torch.device) -> list[Measurement]:
    """The part that knows the instances alone and the whole step, in turn with 10,000 instances; added memory."""
    base, sizes, turns = (Case(200, 40, 8, 16), (400, 800), 2) if small else (
        Case(10_000, 4096, 128, 128), (100_000, 1_000_000), 20
    )  # fmt: skip
    found = []
    for case in (replace(base, instances=instances) for instances in sizes):
        for part, steps in (("loss, gradient and update on ready embeddings", head), ("a whole step", whole)):
            pairs = alternate(steps(case, device), steps(base, device), repeats, turns=turns, device=device)
            milliseconds = [(1000 * mine / turns, 1000 * theirs / turns) for mine, theirs in pairs]
            found.append(_measurement(case, base, part, "ms", milliseconds))
        if device.type == "cuda" or MEMORY.exists():
            memory = (_megabytes(case, device), _megabytes(base, device))
            found.append(_measurement(case, base, "added memory of a whole step", "MB", [memory]))
    return found


def _measurement(case: Case, base: Case, part: str, unit: str, pairs: list[tuple[float, float]]) -> Measurement:
    return Measurement(
        benchmark="instances",
        case=f"{part}, {case}",
        ours=f"{case.instances:,} instances",
        baseline=f"{base.instances:,} instances",
        unit=unit,
        pairs=pairs,
        meaning=f"times that of {base.instances:,} instances",
        target=FLAT,
    )


def head(case: Case, device: torch.device) -> Callable[[], None]:
    """A step from embeddings to updated instance weights; the embeddings are always the same."""
    method, looks = _method(case, device)
    embeddings = torch.randn(case.batch_size, case.width, generator=torch.Generator().manual_seed(0)).to(device)

    def step() -> None:
        z = embeddings.clone().requires_grad_()
        loss, _ = method.collect_and_loss(Step([z], [z], [z], next(looks)))
        loss.backward()  # type: ignore[no-untyped-call]
        _after(method)

    return step


def whole(case: Case, device: torch.device) -> Callable[[], None]:
    """A step from a ready view to updated weights of network and instances."""
    method, looks = _method(case, device)
    loop = default_loop(method, next(looks), "32-true")

    def step() -> None:
        loop.batch = next(looks)
        loop.step()
        _after(method)

    return step


def _after(method: PIC) -> None:
    method.student_steps += 1
    method.follow_student()


def _method(case: Case, device: torch.device) -> tuple[PIC, Iterator[Batch]]:
    """PIC in the middle of its run, and its batches."""
    dataset = synthetic_dataset(case.instances, channels=1, side=28)
    config = configuration(
        dataset,
        "method=pic",
        f"method.negatives={case.negatives}",
        f"method.projector.out={case.width}",
        f"batch_size={case.batch_size}",
        "augment.groups.global.count=1",
        "order.name=window",
    )
    method = build.build_method(config, dataset).to(device)
    assert isinstance(method, PIC)
    factor = method.recipe.factor(STEPS, STEPS)
    method.classes.follow([method.recipe.peak_lr * factor(step) for step in range(STEPS)])
    (batch,) = (batch.to(device) for batch in batches(pictures(case.batch_size, 1, 28), case.batch_size))
    return method, come_round(method, batch)


def come_round(method: PIC, batch: Batch) -> Iterator[Batch]:
    """``batch`` over and over with the images that are next on a circle; those before the first are the recent ones."""
    # In training every row has been written to; here a row's first touch would let the process grow.
    method.classes.velocity.zero_()
    method.classes.taken.zero_()
    circle = torch.randperm(len(method.instances), generator=torch.Generator().manual_seed(0)).to(method.device)
    method.recent = circle[len(circle) - len(method.recent) :].flip(0)

    def looks() -> Iterator[Batch]:
        first = 0
        while True:
            rows = torch.arange(first, first + len(batch), device=circle.device) % len(circle)
            yield replace(batch, index=circle[rows])
            first += len(batch)

    return looks()


def added_memory(case: Case, device: torch.device) -> int:
    """Bytes by which memory grows at most while steps are taken: the card's, else this process's."""
    whole(
        Case(instances=64, negatives=8, batch_size=2, width=2), device
    )()  # what libraries keep for themselves is not counted
    step = whole(case, device)

    def steps() -> None:
        for _ in range(20):
            step()

    return growth(steps, device)


def _megabytes(case: Case, device: torch.device) -> float:
    # In a new process: memory that earlier work has freed would be used again and hide the growth.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return max(pool.submit(added_memory, case, device).result(), 1) / 1e6
