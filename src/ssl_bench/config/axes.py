"""Rows × columns × accountings of a sweep: the arguments of the run at each position of this grid.

Columns are the values of one option, or labels with options of their own, as rows are. An accounting is a label with
options for all runs, or for rows and columns by their labels, such as more epochs where batches are larger.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from ssl_bench.config.options import typed
from ssl_bench.errors import UserError

Overrides = tuple[str, ...]  # of python -m ssl_bench


class Position(NamedTuple):
    """Where in the grid a run stands, by labels; "" where a sweep has no columns or no accountings."""

    row: str
    column: str = ""
    accounting: str = ""

    @property
    def label(self) -> str:
        return ", ".join(part for part in self if part)


NOWHERE = Position("")


def positions(sweep: Mapping[str, Any]) -> dict[Position, Overrides]:
    """The arguments at every position, accounting by accounting and column by column."""
    in_all = tuple(shlex.split(sweep.get("options", "")))
    return {
        Position(row, column, accounting): _merged(in_all, overrides, own, _overrides_of(options, row, column))
        for accounting, options in _accountings(sweep).items()
        for column, own in columns(sweep).items()
        for row, overrides in labelled(sweep["rows"]).items()
    }


def columns(sweep: Mapping[str, Any]) -> dict[str, Overrides]:
    """The arguments of each column by its label; one column without arguments where the sweep has none."""
    option = swept_option(sweep)
    if option is None:
        return labelled(sweep.get("columns") or {"": ""})
    overrides = [f"{option}={typed(value)}" for value in sweep["columns"][option]]
    return {override: (override,) for override in overrides}


def swept_option(sweep: Mapping[str, Any]) -> str | None:
    """The option whose values the columns are; None where they are labels."""
    found = sweep.get("columns") or {}
    listed = [key for key, value in found.items() if isinstance(value, list)]
    if listed and len(found) > 1:
        raise UserError(f"columns are the values of one option, or labels with options, not {' and '.join(found)}.")
    return listed[0] if listed else None


def set_by_axes(sweep: Mapping[str, Any]) -> set[str]:
    """The options that columns and accountings set, which nothing may set for all runs."""
    overrides = {override for own in columns(sweep).values() for override in own}
    for options in _accountings(sweep).values():
        overrides |= {
            override
            for row in sweep["rows"]
            for column in columns(sweep)
            for override in _overrides_of(options, row, column)
        }
    return {override.partition("=")[0] for override in overrides}


def labelled(found: Mapping[Any, str | None]) -> dict[str, Overrides]:
    """The arguments by label; a scale leaves a label out by null."""
    return {str(label): tuple(shlex.split(overrides)) for label, overrides in found.items() if overrides is not None}


def number(column: str) -> float | None:
    """The number that a column stands for: ``batch_size=32`` or ``0.5``; None for another label."""
    try:
        return float(column.rpartition("=")[2])
    except ValueError:
        return None


def _merged(*parts: Overrides) -> Overrides:
    """All arguments; what a later part sets counts."""
    found: Overrides = ()
    for part in parts:
        keys = {override.partition("=")[0] for override in part}
        found = (*(override for override in found if override.partition("=")[0] not in keys), *part)
    return found


def _accountings(sweep: Mapping[str, Any]) -> Mapping[str, Any]:
    return sweep.get("accountings") or {"": ""}


def _overrides_of(options: str | Mapping[str, str], row: str, column: str) -> Overrides:
    """The arguments of an accounting, which are those of all rows, or of some rows or columns by label."""
    if isinstance(options, str):
        return tuple(shlex.split(options))
    by_label = labelled(options)  # YAML reads some labels as numbers
    return (*by_label.get(row, ()), *by_label.get(column, ()))
