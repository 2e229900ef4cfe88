"""Table 2: hyperparameters as conf/ composes them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ssl_bench.cli.report import main
from ssl_bench.config.compose import compose
from ssl_bench.config.experiments import find
from ssl_bench.config.settings import read_settings
from ssl_bench.errors import UserError
from ssl_bench.report import hyperparameters, render
from ssl_bench.report.dashboard import dashboard
from ssl_bench.sweep import request

COMMITTED = Path(__file__).parents[2] / "experiments" / "table2"


def test_every_value_is_that_of_a_run_and_marked_unless_the_paper_states_it() -> None:
    experiment = find("table2")
    found = hyperparameters.values(experiment)
    shown = hyperparameters.table(experiment, found)
    own = compose(["method=clbo", "dataset=digits", "scale=cpu"])
    line = dict(zip(shown.columns, (cell.text for cell in shown.ranked["CLBO, cpu (digits)"]), strict=True))
    assert line["λ"] == f"{own.method.options['proximal']:.3g} *"
    κ, λ, τ = (float(line[name].removesuffix(" *")) for name in ("κ = τλ", "λ", "τ"))
    assert κ == pytest.approx(τ * λ, rel=0.01)
    assert (line["K"], line["projector"], line["queue"], line["redundancy"]) == ("2", "2", "–", "–")
    scale = next(note for note in shown.notes if note.startswith("Scale cpu (digits): "))
    assert scale.startswith(f"Scale cpu (digits): learning rate {own.optimizer.lr:g} *; optimiser {own.optimizer.name}")
    assert shown.notes[2].startswith("Other at scale paper (cifar10): Barlow Twins: clipping 1 *;")


def test_scales_of_the_same_values_are_named_once() -> None:
    known = ["paper (a)", "cpu (a)", "cpu (b)"]
    found = [hyperparameters._in_words(some, known) for some in (known, known[1:], known[:2], known[:1])]
    assert found == ["all scales", "cpu", "paper, cpu (a)", "paper"]


def test_the_committed_table_is_that_of_conf() -> None:
    """`make table2` writes it again."""
    experiment = find("table2")
    table = hyperparameters.table(experiment, hyperparameters.values(experiment))
    assert (COMMITTED / "table.md").read_text(encoding="utf-8") == render.markdown(table)


def test_it_is_written_and_has_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table2", f"out={tmp_path / 'here'}"]) == 0
    assert capsys.readouterr().out == (tmp_path / "here" / "table.md").read_text(encoding="utf-8")
    with (tmp_path / "here" / "results.csv").open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["row"] == "BYOL" and row["option"] == "method.momentum"]
    assert [(row["scale"], row["value"], row["stated"]) for row in rows[:2]] == [
        ("paper (cifar10)", "0.99", "False"),
        ("cpu (digits)", "0.95", "False"),
    ]
    with pytest.raises(UserError, match="table2 is made of conf/ alone and has no runs: python -m ssl_bench report"):
        request.read(["table2"])
    with pytest.raises(UserError, match="table2 is made of conf/ alone and has no runs: python -m ssl_bench report"):
        dashboard(read_settings("dashboard.yaml", ["experiment=table2", "dry=true"]))


def test_without_shared_options_nothing_stands_in_place_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(
        "sweep: {rows: {A: method=byol}, datasets: {smoke: [digits]}, seeds: [0]}\n"
        "show: {kind: options, columns: {T: method.momentum}}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    assert main(["./mine.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "| A" in shown
    assert "Scale smoke" not in shown


def test_a_row_that_a_scale_leaves_out_is_shown_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(
        "sweep:\n  rows: {A: method=byol, B: method=moco}\n  datasets: {smoke: [digits], cpu: [digits]}\n  seeds: [0]\n"
        "  scales: {smoke: {rows: {B: null}}}\n"
        "show: {kind: options, title: Mine, shared: {epochs: epochs}}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    assert main(["./mine.yaml", "out=here"]) == 0
    assert {path.name for path in (tmp_path / "here").iterdir()} >= {"table.md", "table.png"}
