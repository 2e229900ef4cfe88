"""The accuracy that a run of each method should have, and `check learns`."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from made_up import cells_of, keep, record

from ssl_bench.cli import check
from ssl_bench.cli.report import main as report
from ssl_bench.config.options import GROUPS
from ssl_bench.errors import UserError
from ssl_bench.evaluation import protocols
from ssl_bench.report import expected
from ssl_bench.report.expected import Expected
from ssl_bench.training import learns

ROOT = Path(__file__).parents[2]
ROWS = {"SimCLR": "method=simclr epochs=1", "MoCo": "method=moco epochs=1", "CLBO": "method=clbo epochs=1"}
PERCENTS = {"SimCLR": [80.0, 90.0], "MoCo": [70.0, 71.0], "CLBO": [60.0, 62.0]}  # of seeds 0 and 1
DATASETS = ("digits", "fashion_mnist")
ONE = Expected("simclr", "digits", "method=simclr", "linear", 2, 5, 80.0, 2.5, 77.0, "32-true", 1, "2.0")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two records of three methods, which is where we are."""
    monkeypatch.chdir(tmp_path)
    sweep = {"rows": ROWS, "datasets": {"smoke": ["digits"]}, "seeds": [0, 1]}
    text = yaml.safe_dump({"sweep": sweep, "show": {"kind": "expected", "protocols": ["linear"]}})
    (tmp_path / "digits.yaml").write_text(text, encoding="utf-8")
    cells, configs = cells_of("./digits.yaml")
    environment = {"threads": 1, "libraries": {"torch": "2.0"}}
    made = [
        record(cell, config, percent=PERCENTS[cell.row][cell.seed], environment=environment)
        for cell, config in zip(cells, configs, strict=True)
    ]
    keep(tmp_path / "runs", made)
    return tmp_path


def test_rows_of_one_method_and_datasets_have_ranges_of_their_own(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"plain": "method=simclr", "long": "method=simclr epochs=3"}
    sweep = {"rows": rows, "datasets": {"smoke": ["digits", "fashion_mnist"]}, "seeds": [0, 1]}
    text = yaml.safe_dump({"sweep": sweep, "show": {"kind": "expected", "protocols": ["linear"]}})
    (store / "two.yaml").write_text(text, encoding="utf-8")
    cells, configs = cells_of("./two.yaml")
    environment = {"threads": 1, "libraries": {"torch": "2.0"}}
    for cell, config in zip(cells, configs, strict=True):
        percent = 90.0 if cell.dataset == "digits" else 50.0
        made = record(cell, config, percent=percent + cell.seed + 2 * (cell.row == "long"), environment=environment)
        keep(store / "runs", [made])
    assert report(["./two.yaml", "scale=smoke", "out=there"]) == 0
    with (store / "there" / "expected.csv").open(newline="", encoding="utf-8") as file:
        found = {(row["dataset"], "epochs=3" in row["options"]): float(row["mean"]) for row in csv.DictReader(file)}
    assert found == {
        ("digits", False): 90.5, ("digits", True): 92.5, ("fashion_mnist", False): 50.5, ("fashion_mnist", True): 52.5,
    }  # fmt: skip
    table = capsys.readouterr().out
    assert all(
        f"| method=simclr {options}dataset={name} " in table for options in ("", "epochs=3 ") for name in DATASETS
    )


def test_ranges_are_the_means_and_four_deviations_or_the_median_one(store: Path) -> None:
    assert report(["./digits.yaml", "scale=smoke", "out=here"]) == 0
    with (store / "here" / "expected.csv").open(newline="", encoding="utf-8") as file:
        found = {row["method"]: row for row in csv.DictReader(file)}
    deviations = {row: statistics.stdev(percents) for row, percents in PERCENTS.items()}
    for row, method in (("SimCLR", "simclr"), ("MoCo", "moco"), ("CLBO", "clbo")):
        assert float(found[method]["mean"]) == statistics.fmean(PERCENTS[row])
        assert float(found[method]["deviation"]) == pytest.approx(max(deviations[row], 2**0.5), abs=1e-4)
        assert found[method]["options"] == f"{ROWS[row]} dataset=digits scale=smoke"
    assert (found["clbo"]["seeds"], float(found["clbo"]["seed0"])) == ("2", 60.0)
    shown = (store / "here" / "table.md").read_text(encoding="utf-8")
    assert f"{61 - 4 * 2**0.5:.1f} to {61 + 4 * 2**0.5:.1f}" in shown
    assert "| 56.7 to 100.0 |" in shown  # no accuracy is above 100


def test_what_seed_0_had_is_left_open_where_no_run_has_it(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, configs = cells_of("./digits.yaml", seeds=[1, 2])
    environment = {"threads": 1, "libraries": {"torch": "2.0"}}
    for cell, one in zip(cells, configs, strict=True):
        keep(store / "others", [record(cell, one, percent=70.0 + cell.seed, environment=environment)])
    assert report(["./digits.yaml", "scale=smoke", "seeds=1,2", "runs_dir=others", "out=open"]) == 0
    file = store / "open" / "expected.csv"
    with file.open(newline="", encoding="utf-8") as lines:
        assert {row["seed0"] for row in csv.DictReader(lines)} == {""}
    monkeypatch.setattr(expected.resources, "files", lambda _: file.parent)
    monkeypatch.setattr(expected, "FILES", [file.name])
    expected.ranges.cache_clear()
    assert {one.seed0 for one in expected.ranges()} == {None}
    expected.ranges.cache_clear()


@pytest.mark.parametrize(
    ("percent", "inside", "part"),
    [
        (80.0, True, "simclr, linear: 80.0, expected 70.0 to 90.0"),
        (70.0, True, "expected 70.0 to 90.0"),
        (69.5, False, "0.5 points below it, 4.2 standard deviations from the mean of 5 seeds (4 are allowed)"),
        (95.0, False, "5.0 points above it, 6.0 standard deviations"),
        (None, False, "not scored; expected 70.0 to 90.0"),
    ],
)
def test_an_accuracy_outside_its_range_is_shown_with_how_far(percent: float | None, inside: bool, part: str) -> None:
    line, found = learns.verdict(ONE, percent)
    assert found is inside
    assert part in line
    assert ("points" in line) == (not inside and percent is not None)


def test_methods_are_trained_and_compared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    both = (ONE, Expected("byol", "digits", "method=byol", "linear", 2, 5, 50.0, 1.0, 50.0, "32-true", 1, "2.0"))
    monkeypatch.setattr(expected, "ranges", lambda: both)
    asked: list[Any] = []

    def trained(config: Any) -> Any:
        asked.append((config.method.name, config.seed, config.trainer.threads))
        print("a table")
        if config.method.name == "byol":
            raise UserError("the loss is no number.")
        return SimpleNamespace(
            evaluated="student", results={"student": {"linear": 77.0}}, precision="bf16-mixed", device="cuda"
        )

    monkeypatch.setattr(learns, "run", trained)
    assert check.main(["learns", "method=simclr", "seed=3"]) == 0
    assert asked == [("simclr", 3, 1)]
    output = capsys.readouterr().out
    assert output == "✓ simclr, linear: 77.0, expected 70.0 to 90.0\nEvery method learns as expected.\n"
    assert check.main(["learns"]) == 1
    output = capsys.readouterr().out
    assert "✓ simclr, linear: 77.0, expected 70.0 to 90.0; as the committed run" in output
    assert "✗ byol failed: the loss is no number." in output
    first = "Check first: precision (bf16-mixed on cuda here, 32-true on cpu there), threads (1 here, 1 there), torch ("
    assert first in output
    assert check.main(["learns", "method=byol"]) == 1
    assert "Check first: threads (1 here" in capsys.readouterr().out  # no run has finished


def test_images_that_cannot_be_read_are_named_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(config: Any) -> Any:
        raise UserError(f"{config.dataset.name} is not there.")

    monkeypatch.setattr(learns, "build_data", missing)
    monkeypatch.setattr(learns, "run", None)
    assert check.main(["learns", "dataset=cifar10"]) == 2
    found = capsys.readouterr()
    assert (found.out, found.err.count("cifar10 is not there.")) == ("", 1)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("method=simclrr", "no range is known for method=simclrr; did you mean simclr?"),
        ("dataset=stl10", "no range is known for dataset=stl10; known are digits, cifar10."),
        ("seeds=0", "option seeds is unknown; did you mean seed?"),
    ],
)
def test_a_wrong_option_is_answered_in_one_line(override: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["learns", override]) == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize(("dataset", "folder"), [("digits", "."), ("cifar10", "cifar10")])
def test_the_shipped_ranges_are_those_of_the_committed_records(
    dataset: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(ROOT)
    overrides = [f"experiments/learns/{dataset}.yaml", "scale=cpu", f"runs_dir={tmp_path}"]
    assert report([*overrides, f"out={tmp_path / 'learns'}"]) == 0
    made = (tmp_path / "learns" / "expected.csv").read_text(encoding="utf-8")
    for place in (f"experiments/learns/{folder}/expected.csv", f"src/ssl_bench/report/expected_{dataset}.csv"):
        assert Path(place).read_text(encoding="utf-8") == made
    assert Path("experiments/learns", folder, "table.md").read_text(encoding="utf-8") == capsys.readouterr().out


@pytest.mark.parametrize(("dataset", "seeds"), [("digits", 5), ("cifar10", 5)])
def test_every_method_has_a_range_under_the_protocols_of_today(dataset: str, seeds: int) -> None:
    ranges = [one for one in expected.ranges() if one.dataset == dataset]
    assert {one.method for one in ranges} == set(GROUPS["method"])
    probe: Any = None
    versions = {one.name: one.version for one in protocols.protocols(["knn200", "linear"], probe, probe, refit=False)}
    for one in ranges:
        assert one.version == versions[one.protocol]
        assert one.seeds == seeds


@pytest.mark.slow
def test_simclr_learns_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["learns", "method=simclr"]) == 0, capsys.readouterr().out
