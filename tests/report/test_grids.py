"""Accuracy over two axes that are options: heat maps, and lines over numbers."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ssl_bench.cli.report import main
from ssl_bench.config.experiments import Experiment, find
from ssl_bench.report import comparison, figures, grid_pictures, grids
from ssl_bench.report.records import Run

DOCUMENTED = Path(__file__).parents[2] / "docs" / "tables.md"


def grid_file(folder: Path, kind: str, rows: int = 3, columns: str = "batch_size: [16, 32]", show: str = "") -> Path:
    """A grid of one's own, outside of the package."""
    file = folder / "mine.yaml"
    labels = "\n".join(
        f"    a row with a long name, {n}: method=simclr method.temperature={0.1 + n / 10:g}" for n in range(rows)
    )
    file.write_text(
        f"sweep:\n  rows:\n{labels}\n  columns: {{{columns}}}\n  datasets: {{smoke: [digits]}}\n  seeds: [0, 1, 2]\n"
        f"show:\n  kind: {kind}\n{show}",
        encoding="utf-8",
    )
    return file


def partial_runs(experiment: Experiment, name: str, share: int = 1) -> list[Run]:
    """Made-up runs: every ``share``-th is there, the first place failed, the last one collapsed."""
    runs = made_up.runs_of(*made_up.cells_of(name))
    first, last = runs[0].cell.position, runs[-1].cell.position
    found = []
    for number, run in enumerate(runs):
        assert run.record
        if run.cell.position == last:
            run.record.warnings = ["epoch 2: Collapsed: embeddings of different images point the same way."]
            run.record.results["student"] = dict.fromkeys(made_up.PROTOCOLS, 12.0)
        elif run.cell.position == first:
            run = replace(run, entry=None, failure="the loss is not finite")
        elif number % share:
            run = replace(run, entry=None)
        found.append(run)
    return found


def test_a_place_shows_mean_and_spread_and_what_is_missing_failed_or_collapsed() -> None:
    assert grids.Square({0: 90.0, 1: 92.0}, 2, 0, 0).text == "91.0 ± 1.4"
    assert grids.Square({0: 90.0}, 3, 1, 0).text == "90.0 (1/3, 1 failed)"
    assert grids.Square({0: 11.0, 1: 11.0}, 2, 0, 2).text == "11.0 ± 0.0, collapsed 2/2"
    lines = [
        grids.Square(*given).lines
        for given in (
            ({}, 3, 0, 0),
            ({}, 3, 3, 0),
            ({0: 90.0}, 3, 0, 0),
            ({0: 9.0}, 1, 0, 1),
            ({0: 9.0, 1: 9.0}, 2, 0, 1),
        )
    ]
    assert lines == [["–"], ["failed"], ["90.0", "1/3"], ["9.0", "collapsed"], ["9.0", "collapsed 1/2"]]


def test_a_warning_alone_is_no_collapse() -> None:
    run = made_up.runs_of(*made_up.cells_of("fig2", seeds=[0]))[0]
    assert run.record
    run.record.warnings = ["epoch 1: Collapsed: embeddings of different images point the same way."]
    assert not run.collapsed("knn1")
    run.record.results[run.record.evaluated]["knn1"] = 60.0  # random weights have 70
    assert run.collapsed("knn1")
    assert replace(run, on="validation").collapsed("knn1")  # whichever images are shown
    run.record.warnings = []
    assert not run.collapsed("knn1")


def test_a_table_states_it_too() -> None:
    runs = made_up.runs_of(*made_up.cells_of("table4"))
    mse = next(run for run in runs if run.cell.row == "MSE")
    assert mse.record
    mse.record.warnings = ["epoch 1: Collapsed: embeddings of different images point the same way."]
    mse.record.results["teacher"]["linear"] = 10.0
    table = comparison.comparison(find("table4"), runs, "")
    assert table.ranked["MSE"][0].text == "10.0, collapsed 1/1"
    assert "collapsed" not in table.ranked["MSE"][1].text + "".join(cell.text for cell in table.ranked["CLBO"])
    assert comparison.COLLAPSED in table.notes


def test_panels_are_datasets_protocols_networks_and_accountings(tmp_path: Path) -> None:
    file = grid_file(tmp_path, "heat", show="  networks: [student, teacher]\n")
    file.write_text(
        file.read_text().replace("  datasets", "  accountings: {short: epochs=1, long: epochs=2}\n  datasets")
    )
    runs = partial_runs(find(str(file)), str(file))
    found = grids.panels(find(str(file)), runs)
    assert [panel.title for panel in found] == [
        f"{accounting}, {network}, {protocol} on digits"
        for protocol in ("knn1", "linear")
        for network in ("student", "teacher")
        for accounting in ("short", "long")
    ]
    assert found[0].columns == ["batch_size=16", "batch_size=32"]
    assert found[0].notes() == ["failed: a row with a long name, 0 at 16"]
    assert found[1].notes() == ["collapsed: a row with a long name, 2 at 32"]
    short = [run for run in runs if run.cell.position.accounting == "short"]
    elsewhere = [replace(run, cell=replace(run.cell, dataset="cifar10")) for run in short]
    left = grids.panels(find(str(file)), [*runs, *elsewhere])  # as where other records are missing
    assert [panel.title for panel in left[len(found) :]] == [
        f"short, {network}, {protocol} on cifar10"
        for protocol in ("knn1", "linear")
        for network in ("student", "teacher")
    ]


def test_costs_and_projectors_have_panels_of_their_own(tmp_path: Path) -> None:
    show = "  networks: [deployed, projector]\n  protocols: [linear]\n  costs: [seconds, memory]\n  logarithmic: true\n"
    experiment = find(file := str(grid_file(tmp_path, "lines", show=show)))
    runs = made_up.runs_of(*made_up.cells_of(file))
    for run in runs:
        assert run.record
        run.record.core_seconds, run.record.peak_memory_bytes = 10.0 + run.cell.seed, 3_000_000
        run.record.results["projector"] = {"linear": 50.0}
    at = ("a row with a long name, 0", "batch_size=16")
    found = {panel.title: panel for panel in grids.panels(experiment, runs)}
    assert list(found) == [
        "deployed, linear on digits",
        "projector, linear on digits",
        "seconds on digits",
        "memory on digits",
    ]
    assert found["projector, linear on digits"].squares[at].text == "50.0 ± 0.0"
    assert found["seconds on digits"].squares[at].text == "11.0 ± 1.0"
    assert found["memory on digits"].squares[at].text == "3.0 ± 0.0"
    assert found["memory on digits"].measure == "peak memory of the process, MB"
    for run in runs:
        assert run.record
        del run.record.results["projector"]
        run.record.core_seconds = None
    found = {panel.title: panel for panel in grids.panels(experiment, runs)}
    assert found["projector, linear on digits"].squares[at].text == "– (0/3)"  # and not what is deployed
    assert found["seconds on digits"].squares[at].text == "– (0/3)"


def test_what_stands_in_place_of_a_teacher_is_said(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "sweep:\n  rows: {SimCLR: method=simclr, CLBO: method=clbo}\n  columns: {batch_size: [16, 32]}\n"
        "  datasets: {smoke: [digits]}\n  seeds: [0]\nshow: {kind: heat, networks: [deployed, teacher, student]}\n",
        encoding="utf-8",
    )
    lines = grids.notes(find(str(file)), made_up.runs_of(*made_up.cells_of(str(file))))
    assert [line for line in lines if "shown" in line] == [
        "No teacher in SimCLR: the network that is deployed is shown."
    ]


def test_costs_are_drawn_from_zero_and_below_the_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save", lambda path, figure, dpi: drawn.append(figure))
    file = str(grid_file(tmp_path, "lines", show="  protocols: [knn1]\n  costs: [memory]\n"))
    runs = made_up.runs_of(*made_up.cells_of(file))
    for run in runs:
        assert run.record
        run.record.peak_memory_bytes = 900_000_000  # in every run, so that the data alone give the axis no room
    grid_pictures.picture(tmp_path / "figure.png", find(file), runs)
    ((low, high),) = [axes.get_ylim() for axes in drawn[0].get_axes() if "memory" in axes.get_title()]
    assert low == 0
    assert high > 950


def test_random_weights_and_raw_pixels_stand_below_every_table_of_accuracies(tmp_path: Path) -> None:
    file = str(grid_file(tmp_path, "lines", show="  protocols: [knn1]\n  costs: [seconds]\n"))
    runs = made_up.runs_of(*made_up.cells_of(file))
    for run in runs:
        assert run.record
        run.record.results["random"] = {"knn1": 20.0 + (run.cell.position.column == "batch_size=32")}
        run.record.results["pixels"] = {"knn1": 30.0}
    accuracies, seconds = grids.tables(find(file), runs)
    assert {label: [cell.text for cell in row] for label, row in accuracies.reference.items()} == {
        "random weights": ["20.0 ± 0.0", "21.0 ± 0.0"],
        "raw pixels": ["30.0 ± 0.0", "30.0 ± 0.0"],
    }
    assert not seconds.reference
    assert grids.panels(find(file), runs)[0].levels_in_words() == "random weights 20.0 to 21.0, raw pixels 30.0"
    half = [replace(run, entry=None) if "32" in run.cell.position.column else run for run in runs]
    assert [cell.text for cell in grids.tables(find(file), half)[0].reference["raw pixels"]] == ["30.0 ± 0.0", "–"]


def test_panels_that_differ_in_their_accounting_alone_have_the_same_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save", lambda path, figure, dpi: drawn.append(figure))
    file = grid_file(tmp_path, "heat")
    file.write_text(
        file.read_text().replace("  datasets", "  accountings: {low: epochs=1, high: epochs=2}\n  datasets")
    )
    runs = made_up.runs_of(*made_up.cells_of(str(file)))
    levels = {("low", "knn1"): 40.0, ("high", "knn1"): 60.0, ("low", "linear"): 70.0, ("high", "linear"): 90.0}
    for run in runs:
        assert run.record
        at = run.cell.position.accounting
        run.record.results["student"] = {name: levels[at, name] for name in ("knn1", "linear")}
    grid_pictures.picture(tmp_path / "figure.png", find(str(file)), runs)
    limits = {
        axes.get_title().split(" on ")[0]: axes.images[0].get_clim() for axes in drawn[0].get_axes() if axes.images
    }
    assert limits == {
        "low, knn1": (40.0, 60.0),
        "high, knn1": (40.0, 60.0),
        "low, linear": (70.0, 90.0),
        "high, linear": (70.0, 90.0),
    }
    titles = [axes.get_title() for axes in drawn[0].get_axes() if axes.images]
    assert all("random weights" in title and "raw pixels" in title for title in titles)


def test_a_grid_of_ones_own_is_a_file_alone_and_counts_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cells, configs = made_up.cells_of(str(grid_file(tmp_path, "heat", show="  mean: true\n")))
    third = list(zip(cells, configs, strict=True))[::3]
    made_up.keep(tmp_path / "runs", [made_up.record(*pair) for pair in third])
    assert main(["./mine.yaml", "scale=smoke", "out=here"]) == 0
    shown = capsys.readouterr().out
    assert "**mine: knn1 on digits**" in shown
    assert "Missing: 12 of 18 runs." in shown
    assert {file.name for file in (tmp_path / "here").iterdir()} == {"records", "results.csv", "table.md", "figure.png"}
    with (tmp_path / "here" / "results.csv").open(encoding="utf-8") as lines:
        places = {(line["row"], line["column"], line["accounting"]) for line in csv.DictReader(lines)}
    assert places == {tuple(cell.position) for cell, _ in third}


def texts_of(figure: Any) -> Iterator[Any]:
    """What is written in each panel of a figure."""
    for axes in figure.get_axes():
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        yield from (*axes.get_xticklabels(), *axes.get_yticklabels())


@pytest.mark.parametrize(
    ("kind", "rows", "columns", "show"),
    [
        ("heat", 12, "batch_size: [16, 32, 64, 128]", "  mean: true\n"),
        (
            "heat",
            1,
            "a longer label: batch_size=16, another: batch_size=32",
            "  axis: batches\n  rows_axis: kind\n",
        ),
        ("lines", 9, "batch_size: [16, 32, 64]", "  axis: batch size, images\n  logarithmic: true\n"),
    ],
)
def test_no_text_of_a_picture_overlaps_with_a_third_of_the_runs(
    kind: str, rows: int, columns: str, show: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save", lambda path, figure, dpi: drawn.append(figure))
    file = grid_file(tmp_path, kind, rows, columns, show)
    file.write_text(file.read_text().replace("seeds: [0, 1, 2]", "seeds: [0, 1]"))
    experiment = find(str(file))
    grid_pictures.picture(tmp_path / "figure.png", experiment, partial_runs(experiment, str(file), share=3))
    canvas = FigureCanvasAgg(drawn[0])
    canvas.draw()
    texts = [text for text in texts_of(drawn[0]) if text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer()).shrunk(0.98, 0.98)) for text in texts]
    overlapping = [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other)]
    assert not overlapping
    joined = " ".join(text.get_text() for text in texts)
    assert "failed" in joined
    assert "collapsed" in joined
    assert ("kind" in joined) == ("rows_axis" in show)


def test_lines_are_interrupted_where_nothing_is_known_and_failures_stand_at_the_foot(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    file = grid_file(tmp_path, "lines", 1, "batch_size: [16, 32, 64]")
    axes = Figure().add_subplot()
    panel = grids.panels(find(str(file)), partial_runs(find(str(file)), str(file)))[0]
    grid_pictures._lines(axes, find(str(file)), panel)
    line, hollow, failed = axes.lines[:3]
    assert str(line.get_ydata()[0]) == "nan"
    assert (hollow.get_xdata()[0], hollow.get_markerfacecolor()) == (64, "white")
    assert (failed.get_xdata()[0], failed.get_marker(), failed.get_ydata()[0] < 0.1) == (16, "x", True)


def test_the_grid_of_the_pages_is_one(tmp_path: Path) -> None:
    block = re.search(r"<!-- file: batches.yaml -->\n```yaml\n(.*?)```", DOCUMENTED.read_text(encoding="utf-8"), re.S)
    assert block
    (tmp_path / "batches.yaml").write_text(block[1], encoding="utf-8")
    found = made_up.runs_of(*made_up.cells_of(str(tmp_path / "batches.yaml")))
    assert {run.config.epochs for run in found if run.cell.position.accounting == "equal updates"} == {2, 4}


def test_panels_that_stand_together_are_broken_into_rows_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save", lambda path, figure, dpi: drawn.append(figure))
    file = grid_file(tmp_path, "lines", 2, "batch_size: [16, 32, 64]")
    three = "  accountings: {a: epochs=1, b: epochs=2, c: epochs=3}\n  datasets:"
    file.write_text(file.read_text().replace("  datasets:", three))
    experiment = find(str(file))
    grid_pictures.picture(tmp_path / "figure.png", experiment, partial_runs(experiment, str(file)))
    shown = [axes.get_title() if axes.get_visible() else "" for axes in drawn[0].subfigs[0].get_axes()]
    assert shown == [
        f"{part}{protocol} on digits" if part else ""
        for protocol in ("knn1", "linear")
        for part in ("a, ", "b, ", "c, ", "")
    ]
    assert drawn[0].get_figwidth() <= grid_pictures.WIDEST
