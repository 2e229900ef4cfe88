"""Finished runs, listed, chosen, sorted and compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import ssl_bench
from ssl_bench.cli import runs as command
from ssl_bench.report.runs import chosen, condition, in_order, rows
from ssl_bench.results.record import Record

ROOT = Path(__file__).parents[1]
RECORDS = str(ROOT / "tests" / "records")  # of an earlier version
COMMITTED = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in Path(RECORDS).glob("*.json")}


def found(*conditions: str) -> list[Any]:
    everything, skipped = rows(Path("nowhere"), RECORDS)
    assert len(everything) == len(COMMITTED)
    assert not skipped
    return chosen(everything, [condition(word) for word in conditions])


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (["dataset=digits"], lambda r: r["dataset"] == "digits"),
        (["dataset!=digits", "seed=1"], lambda r: r["dataset"] != "digits" and r["seed"] == 1),
        (["knn1>97"], lambda r: r["results"][r["evaluated"]]["knn1"] > 97),
        (["student/linear<=96"], lambda r: r["results"]["student"]["linear"] <= 96),
        (["epochs>=100"], lambda r: r["config"]["epochs"] >= 100),
        (["method.proximal=0"], lambda r: r["config"]["method"]["proximal"] == 0),
        (["subset=null"], lambda r: r["config"]["subset"] is None),
        (["subset>5"], lambda r: (r["config"]["subset"] or 0) > 5),
        (["0657bd", "2387"], lambda r: r["fingerprint"].startswith(("0657bd", "2387"))),
        (["0657bd", "2387", "dataset=digits"], lambda r: r["fingerprint"].startswith("0657bd")),
    ],
)
def test_conditions_choose_the_runs_that_the_records_have(words: list[str], holds: Any) -> None:
    wanted = {name for name, record in COMMITTED.items() if holds(record)}
    assert 0 < len(wanted) < len(COMMITTED)
    assert {row["fingerprint"] for row in found(*words)} == wanted


def test_runs_are_sorted_by_any_figure_and_those_without_it_come_last() -> None:
    everything = found()
    everything[3]["knn1"] = None
    values = [row["knn1"] for row in in_order(everything, "-knn1")]
    assert values.pop() is None
    assert values == sorted(values, reverse=True)
    assert [row["seed"] for row in in_order(everything, "seed")] == sorted(row["seed"] for row in everything)


def test_the_list_shows_what_tells_runs_apart_and_the_file_has_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    options = [f"records={RECORDS}", f"runs_dir={tmp_path}", f"out={tmp_path / 'runs.csv'}", "sort=-knn1"]
    assert command.main([*options, "dataset=digits"]) == 0
    shown = capsys.readouterr().out
    assert "6 runs" in shown
    assert "method.proximal" in shown  # of Figure 2
    assert "optimizer.lr" not in shown  # the same in all
    monkeypatch.setenv("COLUMNS", "90")
    assert command.main(options) == 0
    assert "…" not in capsys.readouterr().out  # nothing is cut where a terminal is narrow
    monkeypatch.setenv("COLUMNS", "80")
    assert command.main(options) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for fingerprint, record in COMMITTED.items():  # the first and the last of its figures are there whole
        (line,) = [words for words in lines if words and words[0] == fingerprint]
        assert f"{record['results'][record['evaluated']]['knn1']:.1f}" in line
        last = Record.from_json(record).last_on_validation
        assert line[-1] == ("–" if last is None else f"{last:.1f}")
    assert command.main([*options, "dataset=digits"]) == 0
    with (tmp_path / "runs.csv").open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [float(row["knn1"]) for row in written] == sorted((float(row["knn1"]) for row in written), reverse=True)
    assert float(written[0]["optimizer.lr"]) == COMMITTED[written[0]["fingerprint"]]["config"]["optimizer"]["lr"]


def test_compared_runs_show_all_that_differs_and_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert command.main([f"records={RECORDS}", "0657bd", "238775", "compare=true"]) == 0
    shown = capsys.readouterr().out
    lines = {line.split("│")[1].strip(): line for line in shown.splitlines() if line.startswith("│")}
    assert "fashion_mnist" in lines["dataset"]
    assert "20000" in lines["subset"]
    assert {"knn1", "seed", "method.proximal"} <= lines.keys()
    assert not {"optimizer.lr", "scale", "method"} & lines.keys()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["method=cblo"], "has method=cblo; did you mean clbo?"),
        (["method=byol"], "has method=byol."),
        (["seed=0", "knn1<1"], "none of the 12 finished runs of"),
        (["records=null"], "nowhere has no finished run: train one, or set runs_dir"),
        (["metod=byol"], "no run has metod; did you mean method?"),
        (["method>3"], "method is clbo, which is no number"),
        (["knn1>high"], "knn1>high: high is no number"),
        (["deadbeef"], "has a fingerprint that begins with deadbeef."),
        (["what?"], "'what?' is no condition as method=byol"),
        (["sort=knn3"], "sort=knn3: no run has knn3; did you mean"),
        (["out=record.json"], "out=record.json is to be a file of comma-separated values: name it as in out=runs.csv."),
        (["sort=knn1", "sort=seed"], "sort is set twice, by sort=knn1 and by sort=seed: leave one of them out."),
        (["--sort"], "--sort is unknown: options are set as key=value"),
        (["compare=true"], "compare=true shows 8 runs at most, and these are 12"),
        (["recods=x"], "option recods is unknown; did you mean records?"),
    ],
)
def test_what_cannot_be_done_is_answered_in_one_line(
    capsys: pytest.CaptureFixture[str], options: list[str], part: str
) -> None:
    own = [] if options == ["records=null"] else [f"records={RECORDS}"]
    assert command.main([*own, "runs_dir=nowhere", *options]) == 2
    shown = capsys.readouterr().err
    assert part in shown
    assert shown.count("\n") == 1


def test_files_that_are_no_records_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = Path(RECORDS) / "0657bdfdf0a0.json"
    for name, text in (("0657bdfdf0a0", good.read_text()), ("half", good.read_text()[:300]), ("other", '{"a": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(text)
    assert command.main([f"runs_dir={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "1 run: " in shown
    assert "2 file(s) left out" in shown
    assert str(tmp_path / "half" / "record.json") in shown
    pytest.importorskip("pandas")
    with pytest.warns(UserWarning, match=r"2 file\(s\) left out"):
        assert list(ssl_bench.load_runs(tmp_path)["fingerprint"]) == ["0657bdfdf0a0"]


def test_the_examples_of_the_notebook_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(ROOT)
    notebook = json.loads((ROOT / "docs" / "notebooks" / "runs.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec("".join(cell["source"]), names)
    frame = names["runs"]
    records = {path.stem: json.loads(path.read_bytes()) for path in ROOT.glob("experiments/table3/records/*.json")}
    found = [record["results"][record["evaluated"]]["knn1"] for record in records.values()]
    own = frame[frame["fingerprint"].isin(records)]
    assert own["knn1"].mean() == pytest.approx(sum(found) / len(found))
    clbo = names["means"].loc["clbo", "knn1"]  # in both accountings, which are no mean of one another
    assert list(clbo["count"]) == [5, 5]
    for measured in ("agreement", "gain"):
        assert "cifar10" in names[measured].index  # and what one has run oneself


def test_a_condition_reads_numbers_as_options_do() -> None:
    assert condition("optimizer.lr<=1e-3").value == 0.001
    assert condition("fingerprint=1e3").value == "1e3"
