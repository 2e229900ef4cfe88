"""``-m``: Hydra's launchers and sweepers, and the joint table at the end."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from ssl_bench.cli import run as cli
from ssl_bench.config import multirun
from ssl_bench.config.parse import starting_points
from ssl_bench.errors import NO_ROOM, UserError
from ssl_bench.report.tables import joint_table
from ssl_bench.results.record import Record

TINY = ["method=simclr", "scale=smoke", "epochs=1", "subset=128", "batch_size=32", "trainer.progress=false"]


COMMITTED = next((Path(__file__).parents[1] / "experiments").glob("*/records/*.json"))


def record(knn1: float, validation: float | None) -> Record:
    found = Record.read(COMMITTED, COMMITTED.stem)
    return replace(
        found,
        evaluated="student",
        scale="smoke",
        results={"student": {"knn1": knn1, "linear": None}, "random": {"knn1": 1.0}},
        curves={} if validation is None else {"validation/knn1/student": [[1, 0.0], [2, validation]]},
        config={**found.config, "evaluation": {"monitor": "knn1"}},
    )


def test_the_joint_table_shows_in_what_the_runs_differ_and_the_deployed_network() -> None:
    options = [["method=byol", "seed=0", "epochs=3"], ["method=moco", "seed=0", "++epochs=4"]]
    console = Console(width=120, record=True)
    console.print(joint_table([record(50.0, 40.0), record(60.0, None)], options))
    lines = [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]
    assert "byol 3 40.0 50.0 –" in lines
    assert "moco 4 – 60.0 –" in lines
    assert "seed" not in " ".join(lines)


def test_runs_that_are_tuned_are_ranked_by_validation_and_only_the_best_shows_its_test_figures() -> None:
    settings = [("0.1", 0, 40.0, 71.0), ("0.3", 0, 44.0, 72.0), ("0.1", 1, 42.0, 73.0), ("0.3", 1, 43.0, 74.0)]
    options = [["method=byol", f"optimizer.lr={lr}", f"seed={seed}"] for lr, seed, _, _ in settings]
    console = Console(width=120, record=True)
    records = [record(test, validation) for _, _, validation, test in settings]
    options += [["method=moco", "optimizer.lr=0.1", "seed=0"]]  # a group of its own
    console.print(joint_table([*records, record(75.0, 10.0)], options))
    text = console.export_text()
    lines = [" ".join(line.replace("│", " ").split()) for line in text.splitlines() if line.startswith("│")]
    assert lines == [
        *("byol 0.3 0 44.0 72.0 –", "byol 0.3 1 43.0 74.0 –", "byol 0.1 0 40.0", "byol 0.1 1 42.0"),
        "moco 0.1 0 10.0 75.0 –",
    ]
    assert "best on validation images" in text


@pytest.mark.parametrize(
    ("options", "runs", "tuning"),
    [
        (["seed=0,1"], 2, False),
        (["method=byol,moco"], 2, False),
        (["dataset=stl10", "dataset.fold=0,1"], 2, False),
        (["runs_dir=a,b"], 2, False),
        (["experiment=fig2", "seed=0"], 2, False),  # whose rows are compared
        (["experiment=fig2", "seed=0", "optimizer.lr=0.1,0.2"], 4, True),
        (["optimizer.lr=0.1,0.2"], 2, True),
        (["seed=0,1", "epochs=1,2"], 4, True),
    ],
    ids=str,
)
def test_runs_are_tuned_by_options_that_change_figures(options: list[str], runs: int, tuning: bool) -> None:
    seen: list[bool] = []
    ended: list[tuple[int, bool]] = []
    status = multirun.multirun(
        lambda config: config.seed,
        ["scale=smoke", *options],
        check=lambda config: None,
        value=float,
        show=lambda result, tuning: seen.append(tuning),
        conclude=lambda outcomes, tuning: ended.append((len(outcomes), tuning)),
    )
    assert status == 0
    assert seen == [tuning] * runs
    assert ended == [(runs, tuning)]


def test_a_run_that_is_tuned_shows_test_figures_only_where_no_other_is_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, other, unheld = record(50.0, 40.0), record(60.0, 45.0), record(70.0, None)
    for shown, tuning, figures in [(one, True, ""), (one, False, "50.0"), (unheld, True, "70.0")]:
        cli.show(shown, tuning)
        assert (figures in capsys.readouterr().out) if figures else not capsys.readouterr().out
    cli.conclude([(["optimizer.lr=0.1"], one)], True)
    assert "50.0" in capsys.readouterr().out
    cli.conclude([(["seed=0"], one)], False)  # its own table has been printed
    assert not capsys.readouterr().out
    cli.conclude([(["optimizer.lr=0.1"], one), (["optimizer.lr=0.2"], other)], True)
    text = capsys.readouterr().out
    assert "60.0" in text
    assert "50.0" not in text


def test_a_full_disk_starts_no_other_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(config: Any) -> Any:
        raise UserError("last.ckpt could not be saved (no space left).", NO_ROOM)

    monkeypatch.setattr(
        multirun, "HydraConfig", SimpleNamespace(get=lambda: OmegaConf.create({"overrides": {"task": []}}))
    )
    with pytest.raises(SystemExit) as ended:
        multirun._job(full, None, lambda *_: None, False, OmegaConf.create())
    assert ended.value.code == NO_ROOM
    assert "no space left" in capsys.readouterr().err


def test_of_several_ranks_the_first_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    cli.show(record(50.0, 40.0), False)  # alone, whatever the environment is left from
    assert "50.0" in capsys.readouterr().out
    monkeypatch.setenv("WORLD_SIZE", "2")
    cli.show(record(50.0, 40.0), False)
    assert not capsys.readouterr().out


def test_sweepers_choose_by_the_last_accuracy_on_validation_images() -> None:
    assert cli.validation_accuracy(record(50.0, 40.0)) == 40.0
    with pytest.raises(UserError, match="scale=smoke holds none out"):
        cli.validation_accuracy(record(50.0, None))
    assert float(multirun.Outcome([], 0, value=2.5)) == 2.5
    with pytest.raises(ValueError, match="no accuracy on validation"):
        float(multirun.Outcome([], 1))


def test_validation_images_that_were_trained_on_choose_nothing() -> None:
    found = record(50.0, 40.0)
    found = replace(found, config={**found.config, "scale": {**found.config["scale"], "hold_out_validation": False}})
    assert found.last_on_validation is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["scale=paper", "dataset=digits", "optimizer.lr=interval(0.01,0.5)"],
            "hydra/sweeper chooses by validation images, and scale=paper holds none out: "
            "search with scale.hold_out_validation=true.",
        ),
        (["method=glob(*)"], "method=glob(*) names no single values: list them, as in seed=0,1,2."),
        (["seed=range(0,0)"], "seed=range(0,0) names no single values: list them, as in seed=0,1,2."),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_runs(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["-m", "hydra/sweeper=optuna", *arguments]) == 2
    assert capsys.readouterr().err == f"ssl_bench: {sentence}\n"


@pytest.mark.slow
def test_a_search_without_a_finished_trial_ends_with_their_reasons(tmp_path: Path) -> None:
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "seed=0,1", "dataset=stl10", "data_dir=nowhere"]
    command = [sys.executable, "-m", "ssl_bench", "-m", *TINY, *words, "runs_dir=my runs, é"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("ssl_bench: ") == 2


def test_what_a_sweeper_chooses_among_is_checked_by_one_run() -> None:
    overrides = ["seed=3", "optimizer.lr=interval(0.01,0.5)", "method=byol,moco", "epochs=range(2,5)"]
    assert list(starting_points(overrides)) == ["seed=3", "optimizer.lr=0.01", "method=byol", "epochs=2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "runs"),
    [
        (["seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], 2),
        (["seed=0,1", "hydra/launcher=submitit_local"], 2),
        (["hydra/sweeper=optuna", "optimizer.lr=interval(0.01,0.5)", "hydra.sweeper.n_trials=3"], 3),
    ],
    ids=["joblib", "submitit", "optuna"],
)
def test_plugins_of_hydra_run_and_end_with_one_table(overrides: list[str], runs: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ssl_bench", "-m", *TINY, *overrides]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index(f"{runs} runs: % of test images") :]
    assert "validation" in table
    assert len(list(tmp_path.glob("runs/*/record.json"))) == runs
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
    if "hydra/sweeper=optuna" in overrides:  # the best is that of validation
        import yaml

        rows = [line.replace("│", " ").split() for line in table.splitlines() if line.startswith("│")]
        best = yaml.safe_load((tmp_path / "runs/hydra/optimization_results.yaml").read_text(encoding="utf-8"))
        assert best["best_value"] == pytest.approx(max(float(row[1]) for row in rows), abs=0.06)
