"""How long training took: on the clock, and computed by this process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ssl_bench.callbacks import timing as module
from ssl_bench.callbacks.timing import Timing


class Clock:
    """Goes on as it is told, in powers of two, which add up exactly."""

    def __init__(self) -> None:
        self.wall, self.core = 1024.0, 8.0

    def wait(self, seconds: float) -> None:
        self.wall += seconds

    def compute(self, seconds: float, cores: int = 1) -> None:
        self.wall += seconds
        self.core += cores * seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: made.wall, process_time=lambda: made.core))
    return made


def batches(timing: Timing, work: Any, count: int = 2) -> None:
    """An epoch of so many batches of four images."""
    trainer: Any = SimpleNamespace(is_last_batch=False)
    batch: Any = SimpleNamespace(place=SimpleNamespace(size=4))
    timing.on_train_epoch_start(trainer, trainer)
    for number in range(count):
        work()
        timing.on_train_batch_end(trainer, trainer, {}, batch, number)


def test_waiting_takes_seconds_on_the_clock_and_none_of_a_core(clock: Clock) -> None:
    timing = Timing()
    batches(timing, lambda: clock.wait(0.25))
    assert (timing.seconds, timing.core_seconds, timing.images) == (0.5, 0.0, 8)
    assert timing.images_per_second == 16.0


def test_what_comes_between_epochs_does_not_count(clock: Clock) -> None:
    timing = Timing()
    for _ in range(3):
        batches(timing, lambda: clock.compute(0.5))
        clock.compute(64.0)  # to evaluate and save
    assert (timing.seconds, timing.core_seconds, timing.images) == (3.0, 3.0, 24)


def test_an_epoch_begun_before_an_interruption_counts_from_where_it_resumes(clock: Clock) -> None:
    timing, nobody = Timing(), SimpleNamespace()
    clock.compute(64.0)  # to read images
    timing.on_train_start(nobody, nobody)  # type: ignore[arg-type]
    clock.compute(0.5)
    batch: Any = SimpleNamespace(place=SimpleNamespace(size=4))
    timing.on_train_batch_end(SimpleNamespace(is_last_batch=False), nobody, {}, batch, 1)  # type: ignore[arg-type]
    assert (timing.seconds, timing.core_seconds, timing.images) == (0.5, 0.5, 4)


def test_computing_takes_both_and_counts_over_interruptions(clock: Clock) -> None:
    timing, resumed = Timing(), Timing()
    batches(timing, lambda: clock.compute(0.25, cores=2))
    assert (timing.seconds, timing.core_seconds) == (0.5, 1.0)
    clock.compute(64.0)
    resumed.load_state_dict(timing.state_dict())
    batches(resumed, lambda: clock.compute(0.25, cores=2))
    assert (resumed.seconds, resumed.core_seconds, resumed.images) == (1.0, 2.0, 16)
    resumed.load_state_dict({"seconds": 3.0, "images": 8})  # a checkpoint of before core_seconds were counted
    assert (resumed.seconds, resumed.core_seconds, resumed.images) == (3.0, 0.0, 8)
