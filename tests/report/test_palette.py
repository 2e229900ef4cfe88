"""How methods look: as their files state, or as their names give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssl_bench.config import experiments
from ssl_bench.config.options import GROUPS
from ssl_bench.errors import UserError
from ssl_bench.report import curves, palette
from ssl_bench.report.contrast import LEAST, PAGES, contrast, seen_on
from ssl_bench.report.palette import colour, label, line_and_mark, row_colours, row_styles

METHODS = GROUPS["method"]


@pytest.mark.parametrize("of", [label, colour])
def test_every_method_has_a_label_and_a_colour_of_its_own(of: Any) -> None:
    assert len({of(name) for name in METHODS}) == len(METHODS)


@pytest.mark.parametrize("name", experiments.names())
def test_rows_keep_their_order(name: str) -> None:
    rows = experiments.find(name).rows
    assert list(row_colours(rows)) == list(row_styles(rows)) == list(rows)


@pytest.mark.parametrize("name", experiments.names())
def test_every_row_is_seen_on_both_pages_and_distinct_without_colours(name: str) -> None:
    rows = experiments.find(name).rows
    for page, background in PAGES.items():
        shades = row_colours(rows, page).values()
        assert len(set(shades)) == len(rows)
        assert all(contrast(shade, background) >= LEAST for shade in shades)
    assert len(set(row_styles(rows).values())) == len(rows)


@pytest.mark.parametrize("colour", ["#000000", "#ffffff", "#f0e442", "#0072b2", "#332288"])
def test_a_colour_is_changed_no_more_than_is_needed_to_be_seen(colour: str) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for page, background in PAGES.items():
        assert contrast(seen_on(page, colour), background) >= LEAST
        if contrast(colour, background) >= LEAST:
            assert seen_on(page, colour) == colour


def test_the_first_row_of_a_method_has_its_look_in_all_of_them() -> None:
    assert row_styles(experiments.find("simclr_width").rows)["SimCLR"] == line_and_mark("simclr")
    assert row_styles(experiments.find("swav_codes").rows)["16 prototypes"] == line_and_mark("swav")
    assert row_colours(experiments.find("fig6").rows)["CLBO"] == colour("clbo") == "#d55e00"
    assert row_colours(experiments.find("table3").rows)["CLBO"] == colour("clbo")


def test_methods_that_state_nothing_are_called_by_their_names_and_drawn_apart(tmp_path: Path) -> None:
    rows = {name: (f"method={name}",) for name in ("mine", "yours", "clbo", "theirs")}
    assert label("mine") == "mine"
    assert line_and_mark("mine") is None
    assert row_colours(rows) == row_colours(rows)
    assert len(set(row_colours(rows).values())) == len(set(row_styles(rows).values())) == 4
    assert row_styles(rows)["clbo"] == ("solid", "*")
    found = curves.styles(experiments.Experiment("figure", rows, {}, [0], {}))
    assert list(found) == list(rows)


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        ({"colour": "blue"}, 'conf/method/mine.yaml, shown: colour is blue: write it as "#0072b2".'),
        ({"line": "thick"}, "line is thick, mark is o: line is one of solid, dashed, mixed, dotted, long, mark one of"),
        ({"mark": "**"}, "line is solid, mark is **: line is one of"),
    ],
)
def test_a_style_that_cannot_be_drawn_is_refused(
    shown: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(palette, "block_of", lambda method, block: shown)
    with pytest.raises(UserError) as caught:
        row_colours({"mine": ("method=mine",)}), row_styles({"mine": ("method=mine",)})
    assert sentence in str(caught.value)
