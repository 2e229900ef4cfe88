"""Figures: accuracy over epochs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import pytest

from ssl_bench.config.experiments import find, names
from ssl_bench.report import curves, figures
from ssl_bench.report.records import Run

FIGURES = [name for name in names() if find(name).show["kind"] == "curves"]


def runs_of(name: str, **limits: Any) -> list[Run]:
    return made_up.runs_of(*made_up.cells_of(name, **limits))


def set_curve(run: Run, name: str, percents: list[float]) -> None:
    assert run.record
    run.record.curves[name] = [[epoch, percent] for epoch, percent in enumerate(percents, start=1)]


def test_lines_are_means_over_seeds_with_a_band_of_one_standard_deviation() -> None:
    runs = runs_of("fig5", seeds=[0, 1, 2])
    for run in runs:
        set_curve(run, "test/knn1/teacher", [80.0 + 2 * run.cell.seed, 90.0])
    line = curves.lines(runs, "knn1", "teacher")[0]
    assert (line.row, line.network, line.seeds, line.wanted) == ("CLBO", "teacher", 3, 3)
    assert line.points[0] == curves.Point(1.0, 82.0, 80.0, 84.0)
    assert line.points[1] == curves.Point(2.0, 90.0, 90.0, 90.0)


def test_the_band_of_two_seeds_goes_from_lowest_to_highest() -> None:
    runs = runs_of("fig5", seeds=[0, 1])
    for run in runs:
        set_curve(run, "test/knn1/teacher", [80.0 + 3 * run.cell.seed])
    assert curves.lines(runs, "knn1", "teacher")[0].points == [curves.Point(1.0, 81.5, 80.0, 83.0)]


def test_epochs_are_the_papers_where_the_method_counts_them_so() -> None:
    runs = [run for run in runs_of("fig4", seeds=[0]) if "equal updates" not in run.cell.row]
    found = {line.row: line.points for line in curves.lines(runs, "linear", "teacher")}
    last = runs[0].config.epochs
    assert {row: points[-1].epoch for row, points in found.items()} == {"K = 1": last, "K = 2": last, "K = 4": last}
    assert [point.epoch for point in found["K = 4"][:4]] == [0.25, 0.5, 0.75, 1.0]
    assert curves.epoch_label(runs) == "epoch (of K passes over the images)"


def test_a_pass_is_an_epoch_elsewhere() -> None:
    assert curves.epoch_label(runs_of("fig5", seeds=[0])) == "epoch (a pass over the images)"


def test_a_method_without_a_teacher_shows_its_student_and_the_deployed_network_is_the_records() -> None:
    runs = runs_of("fig6", seeds=[0], methods=["simclr", "clbo"])
    deployed = {line.row: line.network for line in curves.lines(runs, "linear", "deployed")}
    assert deployed == {"SimCLR": "student", "CLBO": "teacher"}
    asked = {line.row: line.network for line in curves.lines(runs, "linear", "teacher")}
    assert asked == {"SimCLR": "student", "CLBO": "teacher"}
    students = {line.row: line.network for line in curves.lines(runs, "linear", "student")}
    assert students == {"SimCLR": "student", "CLBO": "student"}


def test_panels_state_what_they_lack() -> None:
    runs = runs_of("fig5", seeds=[0, 1, 2])
    left = [
        replace(run, entry=None) if run.cell.row != "CLBO" and run.cell.seed + (run.cell.row[0] == "m") else run
        for run in runs
    ]
    found = curves.lines(left, "knn1", "teacher")
    assert curves.lacking(found) == "seeds: without the proximal term (1/3); missing: moving average after every step"
    assert curves.lacking(curves.lines(runs, "knn1", "teacher")) == ""
    experiment = find("fig5")
    assert "mean over 3 seeds (fewer where a panel states so), band ±" in curves.notes(experiment, left)[0]
    assert "mean over 3 seeds, band ±" in curves.notes(experiment, runs)[0]


@pytest.mark.parametrize("name", FIGURES)
def test_rows_are_distinct_without_colours(name: str) -> None:
    styles = curves.styles(find(name))
    assert len({(str(look["linestyle"]), look["marker"]) for look in styles.values()}) == len(styles)
    assert len({look["color"] for look in styles.values()}) == len(styles)


def test_every_method_is_drawn_the_same_in_every_figure() -> None:
    three, six = curves.styles(find("fig3")), curves.styles(find("fig6"))
    assert all(three[row] == six[row] for row in three.keys() & six.keys())
    assert three["CLBO, K = 1"] == six["CLBO"]


def test_the_table_of_points_has_every_seed() -> None:
    runs = runs_of("fig4", seeds=[0, 1])
    rows = list(curves.results(runs, "linear", "teacher"))
    place = curves.CURVES.index
    one = [row for row in rows if row[place("row")] == "K = 2" and row[place("seed")] == 1]
    run = next(run for run in runs if run.cell.row == "K = 2" and run.cell.seed == 1)
    assert run.record
    expected = run.record.curves["test/linear/teacher"]
    assert [(float(str(row[place("epoch")])), row[place("percent")]) for row in one] == [
        (e / 2, p) for e, p in expected
    ]


def test_the_picture_has_the_means_and_the_levels_of_random_weights_and_raw_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save", lambda path, figure, dpi: drawn.append(figure))
    runs = runs_of("fig5", seeds=[0, 1, 2])
    for run in runs:
        set_curve(run, "test/knn1/teacher", [80.0 + 2 * run.cell.seed, 90.0])
        assert run.record
        run.record.results |= {"random": {"knn1": 30.0}, "pixels": {"knn1": 60.0}}
    experiment = find("fig5")
    experiment = replace(experiment, show={**experiment.show, "protocol": "knn1", "network": "teacher"})
    curves.picture(tmp_path / "figure.png", experiment, runs)
    lines = drawn[0].axes[0].lines
    assert [list(line.get_ydata()) for line in lines[:3]] == [[82.0, 90.0]] * 3
    assert sorted(float(line.get_ydata()[0]) for line in lines[3:]) == [30.0, 60.0]


@pytest.mark.parametrize("name", ["fig4", "fig6"])
def test_pictures_are_drawn_with_and_without_all_runs(name: str, tmp_path: Path) -> None:
    runs = runs_of(name, seeds=[0], methods=["simclr", "clbo"] if name == "fig6" else None)
    for file, shown in (("all.png", runs), ("few.png", [runs[0], *(replace(run, entry=None) for run in runs[1:])])):
        curves.picture(tmp_path / file, find(name), shown)
    assert (tmp_path / "all.png").read_bytes() != (tmp_path / "few.png").read_bytes()
