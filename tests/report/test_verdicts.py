"""Pictures of which rows of a table differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from ssl_bench.report import figures, verdicts

ROWS = {"A": {0: 90.0, 1: 91.0, 2: 90.5}, "B": {0: 90.1, 1: 90.4, 2: 90.6}, "C": {0: 50.0, 1: 51.0, 2: 50.1}}


@pytest.mark.parametrize(
    ("critical", "expected"),
    [(0.5, []), (1.1, [(0, 1), (1, 2), (2, 3)]), (2.1, [(0, 2), (1, 3)]), (9.0, [(0, 3)])],
)
def test_bars_join_the_longest_runs_within_the_critical_difference(
    critical: float, expected: list[tuple[int, int]]
) -> None:
    assert verdicts.groups([1.0, 2.0, 3.05, 4.0], critical) == expected


def test_rows_that_some_column_lacks_are_not_ranked() -> None:
    fewer = {row: ROWS[row] for row in "AB"}
    assert verdicts.in_all_columns({"x": (ROWS, 0.1), "y": (fewer, 0.1)}) == ["A", "B"]


@pytest.mark.parametrize("columns", [1, 2])
def test_a_long_title_and_the_marks_of_two_rows_lie_within_the_picture(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save", lambda path, figure, dpi: drawn.append(figure))
    two = {row: ROWS[row] for row in "AB"}
    compared = {f"digits, protocol {number}": (two, 0.1) for number in range(columns)}
    verdicts.forest(tmp_path / "differences.png", "A title that is longer than the picture is wide, " * 2, compared)
    canvas = FigureCanvasAgg(drawn[0])
    canvas.draw()
    title = drawn[0]._suptitle.get_window_extent(canvas.get_renderer())
    assert title.x0 >= 0
    assert title.x1 <= canvas.get_width_height()[0]
    low, high = sorted(drawn[0].axes[0].get_ylim())
    assert low < -0.3
    assert high > 1.3


def test_the_forest_shows_each_difference_to_the_highest_mean_and_which_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save", lambda path, figure, dpi: drawn.append(figure))
    verdicts.forest(tmp_path / "differences.png", "Title", {"digits, knn1": (ROWS, 0.1)})
    marks = {int(line.get_ydata()[0]): line for line in drawn[0].axes[0].lines if line.get_marker() in ("o", "D")}
    assert [marks[place].get_marker() for place in range(3)] == ["D", "o", "o"]  # A has the highest mean
    assert [float(marks[place].get_xdata()[0]) for place in (1, 2)] == pytest.approx([-0.4 / 3, -40.1333], abs=1e-3)
    assert [marks[place].get_markerfacecolor() for place in (1, 2)] == ["white", "black"]


def test_the_ranking_names_rows_that_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "save", lambda path, figure, dpi: drawn.append(figure))
    fewer = {row: ROWS[row] for row in "AB"}
    verdicts.ranking(tmp_path / "ranks.png", "Title", {"x": (ROWS, 0.1), "y": (fewer, 0.1)})
    verdicts.ranking(tmp_path / "ranks.png", "Title", {"x": (ROWS, 0.1), "y": (ROWS, 0.1)})
    titles = [figure.axes[0].get_title() for figure in drawn]
    assert titles[0].endswith("not ranked, for they are not in every column: C")
    assert "not ranked" not in titles[1]


def test_both_pictures_are_drawn(tmp_path: Path) -> None:
    compared = {"digits, knn1": (ROWS, 0.1), "digits, linear": (ROWS, 0.1)}
    verdicts.forest(tmp_path / "differences.png", "Title", compared)
    verdicts.ranking(tmp_path / "ranks.png", "Title", compared)
    for name in ("differences", "ranks"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 100
            assert len(picture.convert("L").getcolors() or ()) > 10
