"""Pictures of which rows of a table differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ssl_bench.report import verdicts

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


def test_both_pictures_are_drawn(tmp_path: Path) -> None:
    compared = {"digits, knn1": (ROWS, 0.1), "digits, linear": (ROWS, 0.1)}
    verdicts.forest(tmp_path / "differences.png", "Title", compared)
    verdicts.ranking(tmp_path / "ranks.png", "Title", compared)
    for name in ("differences", "ranks"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 100
            assert len(picture.convert("L").getcolors() or ()) > 10
