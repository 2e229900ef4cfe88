"""Whichever way images reach a device, batches are those of the host's memory."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from emulated import emulated, emulation
from ssl_bench.config.compose import compose
from ssl_bench.data import delivery
from ssl_bench.data.delivery import Brought, Copier, Delivery, Resident, Sent, deliveries
from ssl_bench.data.images import Images
from ssl_bench.data.loader import BatchLoader
from ssl_bench.data.orders import permutation
from ssl_bench.errors import UserError
from ssl_bench.training.run import run

GENERATOR = torch.Generator().manual_seed(0)
SPLIT = Images(torch.randint(0, 256, (50, 3, 4, 4), generator=GENERATOR, dtype=torch.uint8), torch.arange(50) % 7)
ROWS = [torch.randperm(50, generator=GENERATOR)[:size] for size in (8, 8, 8, 8, 8, 8, 5)]
CPU = torch.device("cpu")


class LateSent(Sent):
    """Its copy starts as late as it may: when the batch is needed, or the host's memory is to be written again."""

    def __init__(self, host: Tensor) -> None:
        self.host = host
        self.copied: Tensor | None = None
        self.lock = threading.Lock()  # two threads may ask

    def arrived(self) -> Tensor:
        self.wait()
        assert self.copied is not None
        return self.copied

    def wait(self) -> None:
        with self.lock:
            if self.copied is None:
                self.copied = self.host.clone()


class LateCopier(Copier):
    def send(self, host: Tensor) -> Sent:
        return LateSent(host)


def brought(copier: type[Copier] = LateCopier) -> Brought:
    return Brought(SPLIT, CPU, copier(CPU))


def expected(rows: list[torch.Tensor]) -> Any:
    return [(SPLIT.images[chosen], SPLIT.labels[chosen], chosen) for chosen in rows]


def assert_same(found: Any, wanted: Any) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        assert all(map(torch.equal, mine, theirs))


@pytest.mark.parametrize("way", [brought, partial(brought, Copier), partial(Resident, SPLIT, CPU)])
def test_batches_are_those_of_the_hosts_memory_pass_after_pass(way: Any) -> None:
    made: Delivery = way()
    for rows in (ROWS, ROWS[:1], [], ROWS[::-1], [torch.arange(20), *ROWS]):  # the last needs larger buffers
        batches = list(made.batches(rows))
        assert_same(batches, expected(rows))


def test_passes_that_are_broken_off_or_run_side_by_side_do_not_disturb_each_other() -> None:
    made = brought()
    for taken in range(4):
        begun = made.batches(ROWS)
        kept = list(itertools.islice(begun, taken))
        other = list(zip(made.batches(ROWS[::-1]), made.batches(ROWS), strict=True))
        assert_same([first for first, _ in other], expected(ROWS[::-1]))
        assert_same([second for _, second in other], expected(ROWS))
        assert_same([*kept, *begun] if taken % 2 else kept, expected(ROWS[: None if taken % 2 else taken]))


def test_the_next_batch_is_gathered_and_sent_while_one_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[tuple[str, list[int]]] = []
    changed = threading.Condition()
    fill, sent = delivery.Buffer.fill, []

    def watched(self: Any, images: Tensor, rows: Tensor, most: int) -> Any:
        result = fill(self, images, rows, most)
        with changed:
            filled.append((threading.current_thread().name, rows.tolist()))
            changed.notify()
        return result

    monkeypatch.setattr(delivery.Buffer, "fill", watched)
    made = brought()
    send = made.copier.send
    made.copier.send = lambda host: sent.append(len(host)) or send(host)  # type: ignore[method-assign, func-returns-value]
    passing = made.batches(ROWS)
    for step in range(3):
        next(passing)
        with changed:
            assert changed.wait_for(lambda step=step: len(filled) == step + 3, timeout=60)  # type: ignore[misc]
        assert len(sent) == step + 2
    assert [rows for _, rows in filled] == [rows.tolist() for rows in ROWS[:5]]
    assert all(name.startswith("gather") for name, _ in filled)


def test_what_goes_wrong_while_gathering_is_raised_where_the_batch_is_asked_for() -> None:
    passing = brought().batches([ROWS[0], torch.tensor([99])])
    with pytest.raises(IndexError):
        list(passing)


@pytest.mark.parametrize("consumed", [0, 1, 4, 5, 6, 9])
def test_a_state_saved_after_a_batch_resumes_with_the_next_however_far_ahead_the_delivery_is(consumed: int) -> None:
    def loader(way: Delivery) -> BatchLoader:
        order = partial(permutation, 50, 7)
        parts = {"batch_size": 10, "rank": 1, "world": 2, "seed": 7, "drop_last": True}
        return BatchLoader(SPLIT, torch.arange(50), order, **parts, delivery=way)  # type: ignore[arg-type]

    resident = loader(Resident(SPLIT, CPU))
    expected_batches = [batch for _ in range(3) for batch in resident]
    interrupted, seen = loader(brought()), 0
    while seen < consumed:
        for _ in itertools.islice(interrupted, consumed - seen):
            seen += 1
    resumed = loader(brought())
    resumed.load_state_dict(interrupted.state_dict())
    rest = [batch for _ in range(3) for batch in resumed][: 15 - consumed]
    assert len(rest) == 15 - consumed
    for mine, theirs in zip(rest, expected_batches[consumed:], strict=True):
        assert mine.place == theirs.place
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(mine.index, theirs.index)


def test_a_copy_on_another_stream_is_waited_for_by_the_device_alone_and_its_memory_is_not_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    current = SimpleNamespace(wait_event=lambda event: done.append(f"stream waits for {event.name}"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    tensor: Any = SimpleNamespace(
        device="cuda:0", record_stream=lambda stream: done.append(f"kept: {stream is current}")
    )
    event: Any = SimpleNamespace(name="copy", synchronize=lambda: done.append("host waits"))
    on_way = Sent(tensor, event)
    assert on_way.arrived() is tensor
    assert done == ["stream waits for copy", "kept: True"]
    on_way.wait()
    assert done[2:] == ["host waits"]


META = torch.device("meta")  # stands for an accelerator
SPLITS = {"train": SPLIT, "test": SPLIT}
SIZE = 2 * SPLIT.images.numel()


@pytest.mark.parametrize(
    ("resident", "free", "lives"),
    [
        ("auto", 3 * SIZE, True),
        ("auto", 2 * SIZE, False),
        ("auto", None, True),
        ("true", SIZE, True),
        ("false", 100 * SIZE, False),
    ],
)
def test_images_live_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, resident: str, free: int | None, lives: bool
) -> None:
    monkeypatch.setattr(delivery, "free_memory", lambda device: free)
    found, note = deliveries(SPLITS, META, resident)
    assert {type(way) for way in found.values()} == {Resident if lives else Brought}
    assert (note is None) == (lives or resident == "false")
    if note:
        assert "do not fit on meta, where" in note
        assert "dataset.resident=false" in note


def test_images_that_turn_out_not_to_fit_stay_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(delivery, "Resident", full)
    found, note = deliveries(SPLITS, META, "true")
    assert {type(way) for way in found.values()} == {Brought}
    assert note is not None
    assert note.startswith("the images, 4.8 kB, do not fit on meta:")


def test_the_cpu_takes_images_from_its_memory_without_a_copy() -> None:
    found, note = deliveries(SPLITS, CPU, "true")
    assert note is None
    assert all(way.images is SPLIT.images for way in found.values())  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("resident", ["true", "false"])
def test_a_run_on_a_device_is_that_on_the_cpu_and_resumes_in_mid_epoch_wherever_its_images_live(
    tmp_path: Path, resident: str, request: pytest.FixtureRequest
) -> None:
    if resident == "false":  # else the whole ResNet-18 trains
        request.getfixturevalue("few_layers")
    options = ("scale=smoke", "method=simclr", "subset=96", "batch_size=16", "trainer.precision=32-true")
    more = ("trainer.progress=false", "evaluation.protocols=[knn1]", "evaluation.curves=[knn1]", "epochs=1")
    config = compose([*options, *more, f"dataset.resident={resident}", "trainer.checkpoint_seconds=0.000001"])

    class Stop(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, method: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 3:
                raise UserError("stop")

    rows = []
    with emulation():
        for place, wrapped in (("cpu", config), ("device", emulated(config)), ("resumed", emulated(config))):
            wrapped = replace(wrapped, runs_dir=str(tmp_path / place))
            if place == "resumed":
                with pytest.raises(UserError, match="stop"):
                    run(wrapped, [Stop()])
            name = run(wrapped).fingerprint
            rows.append((tmp_path / place / name / "metrics.csv").read_text().splitlines()[1])
    cpu, device = ([float(value) for value in row.split(",")] for row in rows[:2])
    assert device == pytest.approx(cpu, rel=1e-4)  # the optimiser sums in another order
    assert rows[1] == rows[2]
