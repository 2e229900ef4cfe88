"""Rows × columns × accountings of a sweep: the arguments of the run at each place of this grid.

Columns are the values of one option, or labels with options of their own, as rows are. An accounting is a label with
options for all runs, or for rows and columns by their labels, such as more epochs where batches are larger.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from ssl_bench.config.options import typed
from ssl_bench.errors import UserError

Words = tuple[str, ...]  # of python -m ssl_bench


class Place(NamedTuple):
    """Where in the grid a run stands, by labels; "" where a sweep has no columns or no accountings."""

    row: str
    column: str = ""
    accounting: str = ""

    @property
    def label(self) -> str:
        return ", ".join(part for part in self if part)


NOWHERE = Place("")


def places(sweep: Mapping[str, Any]) -> dict[Place, Words]:
    """The arguments at every place, accounting by accounting and column by column."""
    in_all = tuple(shlex.split(sweep.get("options", "")))
    return {
        Place(row, column, accounting): _merged(in_all, words, own, _words_of(options, row, column))
        for accounting, options in _accountings(sweep).items()
        for column, own in columns(sweep).items()
        for row, words in labelled(sweep["rows"]).items()
    }


def columns(sweep: Mapping[str, Any]) -> dict[str, Words]:
    """The arguments of each column by its label; one column without arguments where the sweep has none."""
    option = swept_option(sweep)
    if option is None:
        return labelled(sweep.get("columns") or {"": ""})
    words = [f"{option}={typed(value)}" for value in sweep["columns"][option]]
    return {word: (word,) for word in words}


def swept_option(sweep: Mapping[str, Any]) -> str | None:
    """The option whose values the columns are; None where they are labels."""
    found = sweep.get("columns") or {}
    listed = [key for key, value in found.items() if isinstance(value, list)]
    if listed and len(found) > 1:
        raise UserError(f"columns are the values of one option, or labels with options, not {' and '.join(found)}.")
    return listed[0] if listed else None


def set_by_axes(sweep: Mapping[str, Any]) -> set[str]:
    """The options that columns and accountings set, which nothing may set for all runs."""
    words = {word for own in columns(sweep).values() for word in own}
    for options in _accountings(sweep).values():
        words |= {
            word for row in sweep["rows"] for column in columns(sweep) for word in _words_of(options, row, column)
        }
    return {word.partition("=")[0] for word in words}


def labelled(found: Mapping[Any, str | None]) -> dict[str, Words]:
    """The arguments by label; a scale leaves a label out by null."""
    return {str(label): tuple(shlex.split(words)) for label, words in found.items() if words is not None}


def number(column: str) -> float | None:
    """The number that a column stands for: ``batch_size=32`` or ``0.5``; None for another label."""
    try:
        return float(column.rpartition("=")[2])
    except ValueError:
        return None


def _merged(*parts: Words) -> Words:
    """All arguments; what a later part sets counts."""
    found: Words = ()
    for part in parts:
        keys = {word.partition("=")[0] for word in part}
        found = (*(word for word in found if word.partition("=")[0] not in keys), *part)
    return found


def _accountings(sweep: Mapping[str, Any]) -> Mapping[str, Any]:
    return sweep.get("accountings") or {"": ""}


def _words_of(options: str | Mapping[str, str], row: str, column: str) -> Words:
    """The arguments of an accounting, which are those of all rows, or of some rows or columns by label."""
    if isinstance(options, str):
        return tuple(shlex.split(options))
    by_label = labelled(options)  # YAML reads some labels as numbers
    return (*by_label.get(row, ()), *by_label.get(column, ()))
