"""How long training took: on the clock, and computed by this process."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from ssl_bench.callbacks.timing import Timing


def batches(timing: Timing, work: Any, count: int = 2) -> None:
    """An epoch of so many batches of four images."""
    trainer: Any = SimpleNamespace(is_last_batch=False)
    batch: Any = SimpleNamespace(place=SimpleNamespace(size=4))
    timing.on_train_epoch_start(trainer, trainer)
    for number in range(count):
        work()
        timing.on_train_batch_end(trainer, trainer, {}, batch, number)


def test_waiting_takes_seconds_on_the_clock_and_none_of_a_core() -> None:
    timing = Timing()
    batches(timing, lambda: time.sleep(0.1))
    assert timing.seconds > 0.2
    assert timing.core_seconds < 0.1
    assert timing.images == 8


def test_computing_takes_both_and_counts_over_interruptions() -> None:
    def work() -> None:
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass

    timing, resumed = Timing(), Timing()
    batches(timing, work)
    assert 0.1 < timing.core_seconds <= timing.seconds + 0.01
    resumed.load_state_dict(timing.state_dict())
    batches(resumed, work)
    assert resumed.core_seconds >= timing.core_seconds + 0.1
    earlier = {"seconds": 3.0, "images": 8}  # a checkpoint of before core_seconds were counted
    resumed.load_state_dict(earlier)
    assert resumed.core_seconds == 0.0
