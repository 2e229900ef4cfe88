"""What a sweep will cost, before it starts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from program import Program
from ssl_bench.cli import plan as command
from ssl_bench.plan import forecast
from ssl_bench.plan.forecast import Evaluation, Measured
from ssl_bench.sweep import cards, grid, local
from ssl_bench.sweep import words as said

EVALUATION = Evaluation(key="", load=1.0, monitor=10.0, curves=100.0, final=1000.0, files=7, memory=0, gpu_memory=0)
NOTHING: dict[str, Any] = {
    "start": 0.0,
    "step": 0.0,
    "epoch": 0.0,
    "save": 0.0,
    "checkpoint": 5,
    "memory": 0,
    "gpu_memory": 0,
}


def config(**said: Any) -> dict[str, Any]:
    return {"epochs": 10, "monitor_every": 2, "eval_every": 4, "trainer": {"checkpoint_seconds": 1e9}, **said}


@pytest.mark.parametrize(
    ("passes", "monitor_every", "curves_every"), [(10, 2, 4), (12, 3, 4), (7, 10, 10), (1, 1, 1), (9, 2, 3)]
)
def test_evaluations_are_counted_as_the_monitor_makes_them(passes: int, monitor_every: int, curves_every: int) -> None:
    monitors = curves = 0
    for epoch in range(1, passes + 1):
        if epoch == passes or epoch % curves_every == 0:
            curves += 1
        elif epoch % monitor_every == 0:
            monitors += 1
    assert forecast.evaluations(passes, monitor_every, curves_every) == (monitors, curves)


def test_a_forecast_is_the_sum_of_its_parts() -> None:
    free = Measured(evaluation=EVALUATION, steps=6, passes_per_epoch=1, **NOTHING)
    # Monitors behind epochs 2 and 6; curves behind 4, 8 and 10.
    assert forecast.seconds(free, config()) == 1.0 + 2 * 10.0 + 3 * 100.0 + 1000.0
    costly = Measured(evaluation=EVALUATION, steps=6, passes_per_epoch=3, **{**NOTHING, "step": 0.5, "epoch": 2.0})
    calm = config(monitor_every=99, eval_every=99)
    assert forecast.seconds(costly, calm) == 1.0 + 30 * (6 * 0.5 + 2.0) + 100.0 + 1000.0
    saving = Measured(evaluation=EVALUATION, steps=6, passes_per_epoch=3, **{**NOTHING, "epoch": 10.0, "save": 4.0})
    often = {**calm, "trainer": {"checkpoint_seconds": 60.0}}
    assert forecast.seconds(saving, often) == 1.0 + 300.0 + 100.0 + 1000.0 + (1 + 400 // 60) * 4.0
    assert forecast.disk(free) == 12


def test_sizes_have_three_figures() -> None:
    assert [command._size(size) for size in (12, 1_234, 5_678_900, 12e9)] == ["12 bytes", "1.23 kB", "5.68 MB", "12 GB"]


def test_a_kind_that_crashes_is_counted_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(function: Callable[..., Any], *given: Any, folder: Path | None = None) -> Any:
        if function is grid.fingerprints:
            return [f"{number:012}" for number in range(len(given[0]))]
        if function is cards.visible:
            return []
        raise RuntimeError("Traceback (most recent call last):\n  …\nOutOfMemoryError: no memory\n")

    monkeypatch.setattr(local, "ask", ask)
    assert command.main(["fig2", "scale=smoke", "seeds=0", f"runs_dir={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "2 run(s) could not be measured" in shown
    assert "OutOfMemoryError" in shown
    assert "Traceback" not in shown


def test_a_probe_of_a_few_epochs_owes_the_time_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from ssl_bench.evaluation.features import Features
    from ssl_bench.plan import measure

    draw = torch.Generator().manual_seed(0)
    rows = Features(torch.randn(40, 5, generator=draw), torch.arange(40) % 3, torch.arange(40))
    probe = measure.ShortProbe()
    probe.whole = measure.LinearProbe((0.1, 0.3), epochs=30, batch_size=8, momentum=0.9, weight_decay=0.0, seed=0)
    clock = iter([10.0, 12.0, 20.0, 21.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    few = dataclasses.replace(probe.whole, epochs=measure.PROBE_EPOCHS)
    fitted, expected = probe.fit(rows, rows, 3), few.fit(rows, rows, 3)
    assert torch.equal(fitted.classifier.weight, expected.classifier.weight)
    assert probe.owed == pytest.approx(2.0 * (30 / measure.PROBE_EPOCHS - 1))
    assert torch.equal(
        probe.refit(fitted, rows, rows, 3).classifier.weight, few.refit(expected, rows, rows, 3).classifier.weight
    )
    assert probe.owed == pytest.approx(3.0 * (30 / measure.PROBE_EPOCHS - 1))


@pytest.mark.slow
def test_a_plan_does_not_train_probes_for_hours(tmp_path: Path) -> None:
    words = ["fig2", "scale=smoke", "seeds=0", "subset=96", "batch_size=16", "trainer.threads=1"]
    asked = said.read([*words, "evaluation.linear.epochs=1000000", f"runs_dir={tmp_path}"])
    measured = local.ask(forecast.measure, asked.configs[0], {}, folder=tmp_path)  # it returns
    assert measured.evaluation.final > 1000.0
    assert measured.evaluation.curves > 1000.0
    assert measured.evaluation.load < 100.0


@pytest.mark.slow
def test_a_plan_names_every_kind_and_leaves_nothing_behind(tmp_path: Path, program: Program) -> None:
    words = ("fig5", "scale=smoke", "seeds=0,1", "trainer.threads=1")
    done = program(*words, module="ssl_bench.plan")
    assert done.returncode == 0, done.stderr
    for row in ("CLBO on digits", "without the proximal term on digits", "moving average after every step on digits"):
        assert f"measuring {row}" in done.stdout
    assert "6 runs · · 6 left" in done.stdout
    assert "All runs that are left:" in done.stdout
    assert "could not be measured" not in done.stdout
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_what_is_measured_is_of_the_size_of_what_runs_take(tmp_path: Path, program: Program) -> None:
    """Within a factor of three, since other processes may disturb the tests."""
    words = ("fig2", "scale=smoke", "seeds=0", "epochs=150", "eval_every=3", "trainer.threads=1")
    swept = program(*words, module="ssl_bench.sweep")
    assert swept.returncode == 0, swept.stdout + swept.stderr
    took = [json.loads(file.read_text())["session_seconds"] for file in tmp_path.glob("runs/*/record.json")]
    asked = said.read([*words, f"runs_dir={tmp_path}/other"])
    measured = [local.ask(forecast.measure, found, {}, folder=tmp_path) for found in asked.configs]
    for one, found, seconds in zip(measured, asked.configs, sorted(took), strict=True):
        assert 1 / 3 < forecast.seconds(one, found) / seconds < 3
        assert one.steps == 10
        assert one.memory > 1e8
    known = {measured[0].evaluation.key: measured[0].evaluation}
    again = local.ask(forecast.measure, asked.configs[0], known, folder=tmp_path)
    assert again.evaluation == measured[0].evaluation
    assert again.checkpoint == pytest.approx(measured[0].checkpoint, rel=0.01)
