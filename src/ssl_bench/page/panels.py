"""What the page draws of tables over options: a heat map or lines for every panel that `report` has."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from ssl_bench.config.axes import Position, number
from ssl_bench.config.experiments import Experiment
from ssl_bench.report.grids import Panel, axis_label, panels
from ssl_bench.report.records import Run
from ssl_bench.report.statistics import mean_and_spread

Plain = dict[str, Any]
MEAN = "mean"  # of a row's columns, beside them


def shown(experiment: Experiment, runs: Sequence[Run], rows: Callable[[Sequence[str]], list[Plain]]) -> Plain:
    """The panels of an experiment; ``rows``: how the rows of these labels are drawn."""
    found = panels(experiment, runs)
    labels = list(dict.fromkeys(row for panel in found for row in panel.rows))
    return {
        "axis": axis_label(experiment),
        "logarithmic": experiment.show.get("logarithmic", False),
        "rows": rows(labels),
        "panels": [_panel(panel, beside=experiment.show.get("mean", False)) for panel in found],
    }


def in_words(experiment: Experiment, position: Position) -> str:
    """The label of a position in a table: numbers of the axis are called by its name, without the unit behind it."""
    axis, column = axis_label(experiment).partition(",")[0], _name(position.column)
    return position._replace(column=f"{axis} {column}" if axis and number(column) is not None else column).label


def _panel(panel: Panel, *, beside: bool) -> Plain:
    """One panel, with the mean of each row ``beside`` its columns where that is wanted."""
    squares: list[Plain] = []
    for (row, column), square in panel.squares.items():
        mean, spread = mean_and_spread(list(square.by_seed.values())) if square.by_seed else (None, None)
        squares.append(
            {
                "row": row,
                "column": _name(column),
                "x": number(column),
                "mean": mean,
                "spread": spread or 0.0,
                "lines": square.lines,
                "text": square.text,
                "collapsed": square.collapsed > 0,
            }
        )
    for row in panel.rows if beside else ():
        means = [one["mean"] for one in squares if one["row"] == row and one["mean"] is not None]
        mean = statistics.fmean(means) if means else None
        text = "–" if mean is None else f"{mean:.1f}"
        squares.append(
            {"row": row, "column": MEAN, "x": None, "mean": mean, "spread": 0.0, "lines": [text], "text": text}
        )
    return {
        "title": panel.title,
        "measure": panel.measure,
        "cost": not panel.protocol,
        "rows": panel.rows,
        "columns": [*map(_name, panel.columns), *([MEAN] if beside else [])],
        "squares": squares,
        "kind": panel.kind,
        "levels": {
            label: [mean if math.isfinite(mean) else None for mean in means] for label, means in panel.levels().items()
        },
        "levels_in_words": panel.levels_in_words(),
        "notes": panel.notes(),
    }


def _name(column: str) -> str:
    return column.partition("=")[2] or column
