"""What the page shows of tables and figures: costs, runs of an earlier definition, grids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up import cells_of, keep, record, records_of
from test_page import EVIL, METHODS, data, make, named, page

from ssl_bench.files import csv_text
from ssl_bench.page import former
from ssl_bench.report.records import Run, StoredRecord


def test_a_table_states_what_its_rows_cost_on_one_core_where_all_records_have_that(tmp_path: Path) -> None:
    folder = make(tmp_path / "made")
    files = sorted((folder / "runs").glob("*/record.json"))
    whole = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    for number, one in enumerate(whole):
        one |= {"train_seconds": 100.0, "core_seconds": 10.0 * (number + 1)}
        files[number].write_text(json.dumps(one), encoding="utf-8")
    page(folder, tmp_path / "site", named(folder))
    shown = data(tmp_path / "site", "e0")
    spent = {row: [one["core_seconds"] for one in whole if one["method"] == m] for row, m in METHODS.items()}
    means = {row: sum(values) / 3 for row, values in spent.items()}
    assert shown["costs"] == [{"title": "digits, core time", "seconds": pytest.approx(means, abs=0.01)}]
    assert any(note.startswith("Core time: ") for note in shown["notes"])
    del whole[0]["core_seconds"]
    files[0].write_text(json.dumps(whole[0]), encoding="utf-8")
    page(folder, tmp_path / "site", named(folder))
    shown = data(tmp_path / "site", "e0")
    assert shown["costs"] == [{"title": "digits, time", "seconds": dict.fromkeys(METHODS, 100.0)}]


def test_expected_ranges_have_their_seeds_and_what_they_cost(tmp_path: Path) -> None:
    folder = make(tmp_path / "made")
    described(folder, sweep={"rows": {"SimCLR": "method=simclr", "CLBO": "method=clbo"}}, show={"kind": "expected"})
    for path in (folder / "runs").glob("*/record.json"):
        one = json.loads(path.read_text(encoding="utf-8"))
        one["environment"]["libraries"] = {"torch": "2"}
        path.write_text(json.dumps(one), encoding="utf-8")
    page(folder, tmp_path / "site", named(folder))
    shown = data(tmp_path / "site", "e0")
    assert shown["columns"] == ["digits, knn1", "digits, linear"] == list(shown["seeds"])
    assert list(shown["cells"]) == ["CLBO", "SimCLR"] == list(shown["costs"][0]["seconds"])
    assert len(shown["differences"]) == 2


def described(folder: Path, **changes: dict[str, Any]) -> None:
    """Change parts of the definition in ``folder``."""
    file = folder / "experiments" / "evil" / "rows.yaml"
    now = yaml.safe_load(file.read_text(encoding="utf-8"))
    for part, other in changes.items():
        now[part] |= other
    file.write_text(yaml.safe_dump(now), encoding="utf-8")


def changed(folder: Path) -> Path:
    """The folder of `make`, whose definition asks for others than its runs, which its results name."""
    made = make(folder / "made")
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((made / "runs").glob("*/record.json"))]
    rows = {method: row for row, method in METHODS.items()}
    lines = [(rows[one["method"]], one["seed"], one["fingerprint"]) for one in records for _ in range(2)]
    text = csv_text(("row", "seed", "fingerprint"), lines)
    (made / "experiments" / "evil" / "results.csv").write_text(text, encoding="utf-8")
    rows = {EVIL: "method=simclr epochs=7", "added": "method=byol", "CLBO": "method=clbo epochs=7"}
    described(made, sweep={"rows": rows})
    return made


def test_behind_a_verdict_stand_its_runs_when_the_definition_has_changed(tmp_path: Path) -> None:
    folder = make(tmp_path)
    page(folder, tmp_path / "before", named(folder))
    before = data(tmp_path / "before", "e0")
    folder = changed(tmp_path)
    page(folder, tmp_path / "after", named(folder))
    after = data(tmp_path / "after", "e0")
    assert after.pop("earlier").startswith("These are the 6 runs that the results of its folder name")
    for one in (*before["runs"], *after["runs"]):
        one["command"] = one["command"].split()[:6]
    before["runs"].sort(key=lambda run: run["run"])
    after["runs"].sort(key=lambda run: run["run"])
    assert after == before
    file = folder / "experiments" / "evil" / "rows.yaml"
    page(folder, tmp_path / "asked", str(file.rename(file.with_stem("evil"))), "scale=smoke")  # for today's runs
    assert data(tmp_path / "asked", "e0")["problem"] == "None of its 9 runs is here."


@pytest.mark.parametrize(
    ("today", "stand"),
    [([], True), ([(2, True)], True), ([(2, False)], False), ([(0, True)], False), ([(2, True), (0, True)], False)],
    ids=["none", "another table's", "one's own", "one of them", "both"],
)
def test_earlier_runs_stand_until_ones_own_or_newer_results_are_there(
    today: list[tuple[int, bool]], stand: bool
) -> None:
    cells, configs = cells_of("table3", methods=["moco"], seeds=[0, 1, 2])
    found = records_of([record(*pair) for pair in zip(cells, configs, strict=True)])

    def run(number: int, committed: bool) -> Run:
        return Run(cells[number], configs[number], StoredRecord(Path("a.json"), found[number], committed), None)

    before = [run(0, True), run(1, True)]
    now = [Run(cells[1], configs[1], None, None), *(run(*one) for one in today)]
    wanted = [(one.cell.position, one.record.fingerprint) for one in before if one.record]
    assert former.stand(wanted, now) == stand
    here = f"{len(today) or 'none'} {'are' if len(today) > 1 else 'is'} here."
    note = former.note(before, 2, now)
    assert note.startswith("These are the 2 runs that the results of its folder name")
    assert note.endswith(f"Of the {len(now)} that it asks for now, {here}")
    assert former.note(before[:1], 2, now).startswith("These are 1 of the 2 runs that")


def test_runs_of_an_earlier_definition_are_not_mixed(tmp_path: Path) -> None:
    folder = make(tmp_path / "made")
    files = sorted((folder / "runs").glob("*/record.json"))
    other = json.loads(files[0].read_text(encoding="utf-8"))
    other["protocols"]["knn1"] = 2
    files[0].write_text(json.dumps(other), encoding="utf-8")
    lines = [(EVIL, file.parent.name) for file in files]
    (folder / "experiments" / "evil" / "results.csv").write_text(csv_text(("row", "fingerprint"), lines))
    described(folder, sweep={"rows": {EVIL: "method=simclr epochs=7"}})
    page(folder, tmp_path / "site", named(folder))
    assert "the version of protocol knn1 differs" in data(tmp_path / "site", "e0")["problem"]


GRID = {  # rows × columns × accountings
    "rows": {"SimCLR": "method=simclr", EVIL: "method=byol"},
    "columns": {"batch_size": [16, 32, 64]},
    "datasets": {"smoke": ["digits"]},
    "seeds": [0, 1],
}
SHOWN: dict[str, dict[str, Any]] = {
    "heat": {"mean": True},
    "lines": {"logarithmic": True, "costs": ["seconds"], "axis": "batch size, images"},
}


LACKING = "batch_size=64"


def grids(folder: Path) -> list[str]:
    """The files of a heat map and of lines over one option, whose runs are in ``runs`` but for those of one place."""
    files = []
    for kind, others in SHOWN.items():
        file = folder / f"{kind}.yaml"
        show = {"kind": kind, "title": f"{EVIL} as {kind}", "protocols": ["knn1"], **others}
        file.write_text(yaml.safe_dump({"sweep": GRID, "show": show}, sort_keys=False), encoding="utf-8")
        files.append(str(file))
    cells, configs = cells_of(files[0])
    pairs = [
        (cell, config) for cell, config in zip(cells, configs, strict=True) if cell.position[:2] != (EVIL, LACKING)
    ]
    keep(folder / "runs", [record(*pair, train_seconds=60.0, core_seconds=50.0) for pair in pairs])
    return files


def test_a_table_over_options_is_drawn_as_its_definition_states_it(tmp_path: Path) -> None:
    page(tmp_path, tmp_path / "site", *grids(tmp_path), "scale=smoke")
    heat, lines = (data(tmp_path / "site", name)["grid"] for name in ("e0", "e1"))
    assert (heat["kind"], heat["axis"], lines["kind"], lines["axis"]) == (
        "heat",
        "batch_size",
        "lines",
        SHOWN["lines"]["axis"],
    )
    assert (heat["logarithmic"], lines["logarithmic"]) == (False, True)
    rows = [f"{row}, batch size {size}" for size in (16, 32, 64) for row in GRID["rows"]]
    assert [data(tmp_path / "site", "e1")["kind"], [*data(tmp_path / "site", "e1")["cells"]][:6]] == ["lines", rows]
    (panel,) = heat["panels"]
    assert panel["columns"] == ["16", "32", "64", "mean"]
    assert [panel["rows"], panel["notes"]] == [["SimCLR", EVIL], [f"missing: {EVIL} at 64"]]
    at = {(one["row"], one["column"]): one for one in panel["squares"]}
    for row in panel["rows"]:
        known = [at[row, column]["mean"] for column in ("16", "32", "64") if (row, column) != (EVIL, "64")]
        assert at[row, "mean"]["mean"] == pytest.approx(sum(known) / len(known))
        assert at[row, "16"]["lines"][0] == f"{known[0]:.1f}"
    assert (at[EVIL, "64"]["mean"], at[EVIL, "64"]["lines"]) == (None, ["–"])
    accuracy, cost = lines["panels"]
    assert [one["x"] for one in accuracy["squares"] if one["row"] == EVIL] == [16, 32, 64]
    assert accuracy["levels"].keys() == {"random weights", "raw pixels"}
    assert (accuracy["cost"], cost["cost"], cost["levels"]) == (False, True, {})
    assert {one["mean"] for one in cost["squares"]} == {50.0, None}
