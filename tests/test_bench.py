"""The speed table: what it compares is the same thing, its figures are what they claim, its options are checked."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from benchmarks.augment import PILViews
from benchmarks.bare import BareLoop, default_loop
from benchmarks.knn import MEMORY
from benchmarks.measurement import Measurement, Target, alternate, rates, seconds
from benchmarks.program import Turns
from benchmarks.synthetic import batches, configuration, in_catalog, pictures, synthetic_dataset
from torch import Tensor

from benchmarks import loading, report
from benchmarks import methods as methods_benchmark
from benchmarks import program as program_benchmark
from emulated import emulation
from ssl_bench import devices
from ssl_bench.batch import Batch
from ssl_bench.cli import bench as command
from ssl_bench.config.options import GROUPS
from ssl_bench.config.settings import options_in
from ssl_bench.data import catalog
from ssl_bench.data.readers import cifar
from ssl_bench.errors import UserError
from ssl_bench.results.record import environment
from ssl_bench.training import build


def measurement(
    *pairs: tuple[float, float], benchmark: str = "step", inverse: bool = False, target: Target | None = None
) -> Measurement:
    return Measurement(benchmark, "case", "ours", "theirs", "s", pairs, "times as fast", inverse, target)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("kn", "benchmark kn is unknown; did you mean knn?"),
        ("teachers", "benchmark teachers is unknown; did you mean teacher?"),
        (
            "zzz",
            "benchmark zzz is unknown; "
            "known are step, program, augment, knn, probe, teacher, instances, methods, loading, packing.",
        ),
        ("repeat=3", "option repeat is unknown; did you mean repeats?"),
        ("repeats=0", "repeats=0 is not allowed: repeats is a whole number at least 1."),
        ("repeats=often", "repeats=often is not allowed: repeats is a whole number at least 1."),
        ("size=smal", "size=smal is not allowed: size is full or small; did you mean small?"),
        ("threads=[1", "threads=[1 is not allowed: threads is null or a whole number at least 1."),
    ],
)
def test_a_wrong_option_is_named_in_one_sentence(argument: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        command.read([argument])
    assert str(error.value) == sentence


def test_arguments_choose_benchmarks_and_options_and_none_means_all() -> None:
    assert command.read([]) == (
        list(command.BENCHMARKS),
        {"repeats": 5, "size": "full", "device": "auto", "threads": None, "out": None},
    )
    names, settings = command.read(["knn", "repeats=2", "step", "out=some/where", "knn"])
    assert names == ["knn", "step"]
    assert (settings["repeats"], settings["out"]) == (2, "some/where")


def test_a_wrong_option_ends_the_command_before_torch_is_imported() -> None:
    script = "import sys, ssl_bench.cli.bench as m; s = m.main(['kn']); sys.exit(9 if 'torch' in sys.modules else s)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "ssl_bench: benchmark kn is unknown; did you mean knn?\n"


def test_every_benchmark_has_a_file_of_its_name() -> None:
    folder = command.ROOT / "benchmarks"
    assert all((folder / f"{name}.py").exists() for name in command.BENCHMARKS)
    assert all(name in command.help_text() for name in (*command.BENCHMARKS, *options_in("bench.yaml")))


def test_both_sides_take_turns_and_their_first_calls_do_not_count() -> None:
    calls: list[str] = []
    pairs = alternate(lambda: calls.append("ours"), lambda: calls.append("baseline"), repeats=3, turns=2)
    assert calls == ["ours", "baseline"] * (1 + 3 * 2)
    assert len(pairs) == 3


def test_the_program_pays_for_all_between_epochs_and_not_for_the_bare_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    turns = Turns(cast(BareLoop, SimpleNamespace(step=lambda: spend(100))))
    method = cast(pl.LightningModule, None)
    for epoch in range(4):
        turns.on_train_epoch_start(cast(pl.Trainer, SimpleNamespace(current_epoch=epoch)), method)
        for step in range(2):
            spend(1)  # loader
            turns.on_train_batch_start(cast(pl.Trainer, None), method, cast(Batch, None), step)
            spend(10)  # step
        spend(1000 * epoch)  # what ends an epoch
    assert turns.pairs == [(1022, 200), (2022, 200)]  # neither the first epoch nor the last


def test_work_on_a_card_is_timed_by_its_events_and_named_in_its_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            done.append("record")

        def synchronize(self) -> None:
            done.append("wait")

        def elapsed_time(self, other: Event) -> float:
            assert done == ["record", "work", "record", "wait"]
            return 250.0  # ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert seconds(lambda: done.append("work"), torch.device("cuda")) == 0.25
    monkeypatch.setattr(report, "environment", lambda: {**environment(), "accelerator": "NVIDIA Made-up"})
    for device, named in (("cuda", True), ("cpu", False)):
        report.save(tmp_path, [measurement((1.0, 2.0))], size="full", load=None, device=device)
        assert report.read(tmp_path / "results.csv")[-1]["machine"].startswith("NVIDIA Made-up, ") == named


def test_on_an_accelerator_clocks_stop_when_the_work_is_done_and_the_program_runs_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = behind = 0.0  # what the host has spent, and what the device still has to do

    def give(seconds: float) -> None:
        nonlocal behind
        behind += seconds

    def wait(device: torch.device) -> None:
        nonlocal now, behind
        now, behind = now + behind, 0.0

    def timed(work: Callable[[], object], device: torch.device) -> float:
        started = now
        work()
        wait(device)
        return now - started

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(program_benchmark, "wait", wait)
    monkeypatch.setattr(program_benchmark, "seconds", timed)
    turns = Turns(cast(BareLoop, SimpleNamespace(step=lambda: give(100))), torch.device("cuda"))
    for epoch in range(4):
        trainer = cast(pl.Trainer, SimpleNamespace(current_epoch=epoch, num_training_batches=2))
        turns.on_train_epoch_start(trainer, cast(pl.LightningModule, None))
        for step in range(2):
            turns.on_train_batch_start(trainer, cast(pl.LightningModule, None), cast(Batch, None), step)
            assert behind == 10 * step  # nobody waits within an epoch
            give(10)
    assert turns.pairs == [(20, 200), (20, 200)]


def test_the_ratio_is_the_median_over_pairs_so_a_slow_minute_cancels() -> None:
    slow = 10.0  # times slower, in the second and third pair
    pairs = [(1.0, 3.0), (slow, 3.0 * slow), (slow, 3.0 * slow), (1.0, 3.3)]
    assert measurement(*pairs, inverse=True).ratio == pytest.approx(3.0)
    assert measurement(*rates(pairs, 128)).ratio == pytest.approx(3.0)


def test_a_target_is_a_bound_on_the_ratio_or_on_the_value() -> None:
    assert measurement((4.0, 2.0)).reached is None
    assert measurement((4.0, 2.0), target=Target(2.0, at_least=True)).reached is True
    assert measurement((4.0, 2.0), target=Target(2.1, at_least=True)).reached is False
    assert measurement((4.0, 2.0), target=Target(2.0, at_least=False)).reached is True
    assert measurement((4.0, 2.0), target=Target(1.9, at_least=False)).reached is False
    assert measurement((4.0, 2.0), target=Target(3.9, at_least=False, on="value")).reached is False


TAKE_AND_GIVE_BACK = """
import time, torch
from benchmarks.knn import Task, added_memory

def way(bank, labels, queries, k):
    if len(bank) > k:  # not in the call that warms up
        block = torch.ones(64 * 2**20, dtype=torch.uint8)
        time.sleep(0.5)
        del block
    return labels

print(added_memory(way, Task("clustered", 1000, 10, 5)))
"""


@pytest.mark.skipif(not MEMORY.exists(), reason="the system does not state it")
def test_added_memory_sees_what_was_taken_and_given_back() -> None:
    # A process of its own, as the benchmark is: one that has freed memory before takes it from there.
    done = subprocess.run([sys.executable, "-c", TAKE_AND_GIVE_BACK], capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(64 * 2**20, rel=0.1)


def test_saving_replaces_the_rows_of_the_same_benchmark_only(tmp_path: Path) -> None:
    both = [measurement((1.0, 2.0), benchmark="step"), measurement((1.0, 3.0), benchmark="knn")]
    report.save(tmp_path, both, size="full", load=0.1, device="cpu")
    report.save(tmp_path, [measurement((1.0, 5.0), (1.0, 4.0), benchmark="step")], size="full", load=None, device="cpu")
    rows = report.read(tmp_path / "results.csv")
    assert [(row["benchmark"], row["baseline_median"], row["repeats"]) for row in rows] == [
        ("knn", "3", "1"),
        ("step", "4.5", "2"),
    ]
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_a_benchmark_on_a_card_leaves_the_rows_of_cpu_and_other_cards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for device, card in (("cpu", "A"), ("cuda", "A"), ("cuda", "B, 80 GB"), ("cuda", "A"), ("cpu", "B, 80 GB")):
        monkeypatch.setattr(report, "environment", lambda card=card: {**environment(), "accelerator": card})
        report.save(tmp_path, [measurement((1.0, 2.0))], size="full", load=None, device=device)
    found = [report._card(row["machine"]) for row in report.read(tmp_path / "results.csv")]
    assert found == ["B, 80 GB", "A", ""]


def test_a_file_of_another_kind_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="does not hold measurements"):
        report.save(tmp_path, [measurement((1.0, 2.0))], size="full", load=None, device="cpu")
    assert path.read_text() == "a,b\n1,2\n"


def test_an_archive_is_the_same_read_with_checks_and_without(tmp_path: Path) -> None:
    archive = loading.write_archive(tmp_path, batch=3)
    checked = cifar.read10(tmp_path)
    for split, (images, labels) in loading.unchecked(archive).items():
        assert np.array_equal(checked[split].images, images)
        assert checked[split].labels.tolist() == labels.tolist()


@pytest.mark.parametrize("method", ["simclr", "byol", "clbo", "directpred"])
def test_the_bare_loop_takes_the_step_that_training_takes(method: str) -> None:
    dataset = synthetic_dataset(8, channels=3, side=32)
    config = configuration(dataset, f"method={method}", "backbone.width=8", "batch_size=8")
    (batch,) = batches(pictures(8, 3, 32), 8)
    bare = default_loop(build.build_method(config, dataset), batch, "32-true")
    trained = build.build_method(config, dataset)
    optimizer, _ = trained.recipe.build(trained.parameter_groups(), total_steps=1, steps_per_epoch=1)
    before = [parameter.clone() for parameter in trained.parameters()]

    bare.step()
    trained.training_step(batch, 0)["loss"].backward()
    optimizer.step()

    moved = [not torch.equal(old, new) for old, new in zip(before, trained.parameters(), strict=True)]
    assert any(moved)
    for mine, theirs in zip(bare.method.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pil_pipeline_draws_the_same_recipe(channels: int) -> None:
    count = 400
    dataset = synthetic_dataset(count, channels, side=32)
    views = build.build_method(configuration(dataset, "backbone.width=1"), dataset).views
    images = pictures(count, channels, 32)
    (batch,) = batches(images, count)
    ours = views(batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [
            torch.stack(view) for view in zip(*map(PILViews(images, views).__getitem__, range(count)), strict=True)
        ]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        # Over images, of each image's mean, contrast, sharpness and colour: a missing operation moves one of them.
        for feature in (_mean, _contrast, _sharpness, _colour):
            a, b = feature(mine), feature(other)
            error = (a.var() / count + b.var() / count).sqrt()
            assert abs(float(a.mean() - b.mean())) <= 4 * float(error) + 0.01, feature.__name__


def _mean(views: Tensor) -> Tensor:
    return views.mean((1, 2, 3))


def _contrast(views: Tensor) -> Tensor:
    return views.std((1, 2, 3))


def _sharpness(views: Tensor) -> Tensor:
    return views.diff(dim=-1).abs().mean((1, 2, 3))


def _colour(views: Tensor) -> Tensor:
    return (views - views.mean(1, keepdim=True)).abs().mean((1, 2, 3))


def test_the_made_up_dataset_is_in_the_catalog_only_while_it_is_needed() -> None:
    dataset = synthetic_dataset(20, channels=3, side=8)
    with in_catalog(dataset):
        splits = catalog.load("synthetic", "nowhere")
    assert splits["train"].images.shape == (20, 3, 8, 8)
    assert "synthetic" not in catalog.DATASETS


@pytest.mark.slow
def test_every_benchmark_runs_and_leaves_its_rows_and_a_picture(tmp_path: Path) -> None:
    command_line = [sys.executable, "-W", "error", "-m", "ssl_bench", "bench", "size=small", "repeats=1", "out=found"]
    done = subprocess.run(command_line, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "found" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(dict.fromkeys(row["benchmark"] for row in rows)) == list(command.BENCHMARKS)
    for row in rows:
        assert float(row["min"]) <= float(row["median"]) <= float(row["max"])
        assert float(row["ratio"]) > 0
        assert row["size"] == "small"
        assert row["ours"]
        assert row["baseline"]
        assert "torch" in row["versions"]
    assert (tmp_path / "found" / "ratios.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS["method"])
def test_every_methods_step_is_taken_where_the_device_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "resolve_precision", lambda *asked: "32-true")  # the emulated device has no autocast
    with emulation() as device:
        loop, looks = methods_benchmark.halfway(name, methods_benchmark.SMALL, device)
        loop.batch = next(looks)
        loop.step()
        assert {p.device for p in loop.method.parameters()} == {device}
        assert {p.grad.device for p in loop.method.student.parameters() if p.grad is not None} == {device}
