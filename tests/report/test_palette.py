"""One colour per method."""

from __future__ import annotations

import pytest

from ssl_bench.config import experiments
from ssl_bench.config.options import GROUPS
from ssl_bench.report.palette import METHODS, row_colours


def test_every_method_has_a_colour_of_its_own() -> None:
    assert sorted(METHODS) == GROUPS["method"]
    assert len(set(METHODS.values())) == len(METHODS)


@pytest.mark.parametrize("name", experiments.names())
def test_every_row_of_a_table_or_figure_has_a_colour_of_its_own(name: str) -> None:
    rows = experiments.find(name).rows
    colours = row_colours(rows)
    assert list(colours) == list(rows)
    assert len(set(colours.values())) == len(rows)


def test_the_first_row_of_a_method_has_its_colour_in_all_of_them() -> None:
    assert row_colours(experiments.find("fig6").rows)["CLBO"] == METHODS["clbo"]
    assert row_colours(experiments.find("table3").rows)["CLBO"] == METHODS["clbo"]
