"""make's variables: those it takes reach the commands, any other starts nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_bench.config import experiments

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=cwd, capture_output=True, text=True, env=environment)


def dry(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What make would do."""
    return make("-n", *arguments)


@pytest.mark.parametrize("setting", ["scale=smoke", "methods=clbo", "trainer.threads=1", "jobs=2"])
def test_a_variable_that_make_does_not_take_starts_nothing(setting: str) -> None:
    done = dry("table3", setting)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"make takes no variable {setting.partition('=')[0]}; it takes SCALE SEEDS METHODS" in done.stderr


def test_values_may_have_spaces() -> None:
    assert dry("test", "PYTEST=.venv/bin/python -m pytest -x").stdout.strip().endswith('pytest -x -m "not slow"')


def test_variables_reach_plan_sweep_and_report() -> None:
    options = "scale=cpu trainer.threads=1 seeds=0,1 methods=clbo,byol datasets=digits"
    done = dry("table3", "SCALE=cpu", "THREADS=1", "SEEDS=0,1", "METHODS=clbo,byol", "DATASETS=digits", "JOBS=2")
    assert done.returncode == 0, done.stderr
    for command in (
        f"plan table3 {options} jobs=2",
        f"sweep table3 {options} jobs=2",
        f"report table3 {options} out=runs/table3-cpu",
    ):
        assert command in done.stdout


def test_all_of_the_cpu_scale_is_rendered_to_the_repository_and_the_rest_beside_the_runs() -> None:
    assert "out=experiments/fig5 " in dry("fig5").stdout
    assert "out=runs/fig5-smoke " in dry("fig5", "SCALE=smoke").stdout
    assert "out=runs/fig5-cpu " in dry("fig5", "SEEDS=0").stdout
    assert "plan" not in dry("fig5", "PLAN=no").stdout


def test_paper_is_every_table_and_figure() -> None:
    done = dry("paper", "SCALE=smoke")
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "plan" not in shown
    for name in set(experiments.names()) - {"calibration"}:
        assert f"sweep {name} scale=smoke ;" in shown
        assert f"report {name} scale=smoke out=runs/{name}-smoke " in shown
    for name in ("report table2", "data table"):
        assert name in shown


@pytest.mark.slow
def test_paper_at_scale_smoke_runs_and_renders_everything(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    installed = tmp_path / ".venv" / ".installed"
    installed.parent.mkdir()
    for stamp in (tmp_path / "pyproject.toml", installed):
        stamp.touch()
    done = make("paper", "SCALE=smoke", "SEEDS=0", "THREADS=1", f"BIN={Path(sys.executable).parent}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr  # of every sweep and every report
    for name in set(experiments.names()) - {"calibration"}:
        rendered = {path.name for path in (tmp_path / "runs" / f"{name}-smoke").iterdir()}
        assert rendered >= {"records", "results.csv"}, name
    for name in ("table1", "table2", "directpred_dynamics"):
        assert (tmp_path / "runs" / f"{name}-smoke" / "table.md").exists(), name
    assert not (tmp_path / "experiments").exists()
