"""Pictures of accuracy over two axes that are options: heat maps, and lines over numbers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_bench.config.axes import number
from ssl_bench.config.experiments import Experiment
from ssl_bench.report.curves import THIN, name_at_right, styles
from ssl_bench.report.grids import Panel, Square, axis_label, notes, panels
from ssl_bench.report.records import Run
from ssl_bench.report.statistics import mean_and_spread

COLOURS = "cividis"  # the same to those who see few colours, and ever lighter in gray
DARK = 0.55  # share of the colours on which white letters are read
SLANTED = 8  # letters from which a column's label is slanted
WIDEST = 9.8  # inches: a wider picture has letters too small to read where a page is 800 pixels wide


def picture(path: Path, experiment: Experiment, runs: Sequence[Run]) -> None:
    """Draw all panels as PNG: a row of accountings, or of protocols and networks where there is one accounting.

    A row that is wider than WIDEST is broken into several.
    """
    from ssl_bench.report.figures import above_notes, legend_below, save

    show, found = experiment.show, panels(experiment, runs)
    accountings = len({panel.accounting for panel in found})
    together = accountings if accountings > 1 else len(show["protocols"]) * len(show["networks"]) + len(show["costs"])
    size = _heat_size(experiment, found) if show["kind"] == "heat" else (4.6, 3.2)
    broken = math.ceil(together / max(1, int((WIDEST - 0.4) / size[0])))  # rows of those that stand together
    across = math.ceil(together / broken)
    places: list[Panel | None] = []
    for first in range(0, len(found), together):
        places += [*found[first : first + together], *[None] * (broken * across - together)]
    width = max(size[0] * across + 0.4, 6.4)
    drawn, above = above_notes(width, size[1] * (len(places) // across) + 1.1, notes(experiment, runs))
    grid = above.subplots(len(places) // across, across, squeeze=False)
    handles: dict[str, Any] = {}
    for panel, axes_of in zip(places, grid.flat, strict=True):
        if panel is None:
            axes_of.set_visible(False)
            continue
        if show["kind"] == "heat":
            _heat(axes_of, experiment, panel, [other for other in found if other.kind == panel.kind])
        else:
            handles |= _lines(axes_of, experiment, panel)
        below = panel.levels_in_words() if show["kind"] == "heat" else ""  # among lines they are lines
        axes_of.set_title("\n".join(filter(None, [panel.title, below])), fontsize=9, pad=8 if below else None)
    above.suptitle(show["title"], fontsize=11, fontweight="bold")
    if handles:
        legend_below(above, width, handles)
    save(path, drawn, dpi=150)


def _heat_size(experiment: Experiment, found: Sequence[Panel]) -> tuple[float, float]:
    """Inches of a panel that hold its labels and squares."""
    columns = len(found[0].columns) + bool(experiment.show["mean"])
    letters = max(len(row) for row in found[0].rows)
    return 0.62 * columns + 0.075 * letters + 1.2, 0.42 * len(found[0].rows) + 1.65


def _heat(axes_of: Any, experiment: Experiment, panel: Panel, alike: Sequence[Panel]) -> None:
    """Squares with figures, as light as they are accurate among all panels ``alike``; hatched where there are none."""
    import numpy as np

    rows, columns = panel.rows, panel.columns
    shown = [[panel.squares[row, column] for column in columns] for row in rows]
    values = np.array(
        [[np.mean(list(one.by_seed.values())) if one.by_seed else np.nan for one in row] for row in shown]
    )
    texts = [[one.lines for one in row] for row in shown]
    labels = [column.partition("=")[2] or column for column in columns]
    if experiment.show["mean"]:  # of columns that are there
        means = [[np.mean(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan] for row in values]
        values = np.hstack([values, means])
        texts = [
            [*row, [f"{mean:.1f}"] if np.isfinite(mean) else ["–"]] for row, (mean,) in zip(texts, means, strict=True)
        ]
        labels.append("mean")
    axes_of.set_facecolor("white")
    known = [np.mean(list(one.by_seed.values())) for other in alike for one in other.squares.values() if one.by_seed]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    drawn = axes_of.imshow(np.ma.masked_invalid(values), cmap=COLOURS, aspect="auto", vmin=low, vmax=high)
    for y, row in enumerate(texts):
        for x, lines in enumerate(row):
            if not np.isfinite(values[y, x]):
                axes_of.add_patch(_hatched(x, y))
            dark = np.isfinite(values[y, x]) and drawn.norm(values[y, x]) < DARK
            colour = "white" if dark else "black"
            axes_of.text(x, y, "\n".join(lines), fontsize=7, ha="center", va="center", color=colour, linespacing=1.1)
    slanted = max(map(len, labels)) > SLANTED
    axes_of.set_xticks(
        range(len(labels)),
        labels,
        fontsize=8,
        rotation=30 if slanted else 0,
        ha="right" if slanted else "center",
    )
    axes_of.set_yticks(range(len(rows)), rows, fontsize=8)
    axes_of.set_xlabel(axis_label(experiment), fontsize=8)
    axes_of.set_ylabel(experiment.show["rows_axis"] or "", fontsize=8)
    axes_of.tick_params(length=0)
    if experiment.show["mean"]:
        axes_of.axvline(len(labels) - 1.5, color="white", linewidth=3)
    bar = axes_of.figure.colorbar(drawn, ax=axes_of, fraction=0.04, pad=0.02)
    bar.set_label(panel.measure, fontsize=7)
    bar.ax.tick_params(labelsize=7)


def _hatched(x: int, y: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="white", edgecolor="#bbbbbb", hatch="////", linewidth=0)


def _lines(axes_of: Any, experiment: Experiment, panel: Panel) -> dict[str, Any]:
    """A line for every row over the numbers of the columns; returns what to name in the legend."""
    xs = [number(column) or 0.0 for column in panel.columns]
    drawn_as, handles = styles(experiment), {}
    for place, row in enumerate(panel.rows):
        squares = [panel.squares[row, column] for column in panel.columns]
        handles[row] = _line(axes_of, xs, squares, drawn_as[row], place)
    if experiment.show["logarithmic"]:
        axes_of.set_xscale("log")
    axes_of.set_xticks(xs, [f"{x:g}" for x in xs])
    axes_of.minorticks_off()
    below = "; ".join(panel.notes()).replace("failed:", "failed (×):").replace("collapsed:", "collapsed (hollow):")
    axes_of.set_xlabel("\n".join([*filter(None, [axis_label(experiment)]), *textwrap.wrap(below, 60)]), fontsize=8)
    axes_of.set_ylabel(panel.measure, fontsize=8)
    axes_of.tick_params(labelsize=8)
    axes_of.grid(visible=True, color="#e5e5e5", linewidth=0.6)
    axes_of.set_axisbelow(True)
    axes_of.spines[["top", "right"]].set_visible(False)
    levels = panel.levels()
    for means in levels.values():  # those of random weights differ from network to network
        axes_of.plot(xs, means, **THIN)
    name_at_right(axes_of, {label: list(filter(math.isfinite, means))[-1] for label, means in levels.items()})
    if not panel.protocol:
        axes_of.set_ylim(0, 1.1 * axes_of.get_ylim()[1])  # from 0: small differences of what runs cost are none
    return handles


def _line(axes_of: Any, xs: Sequence[float], squares: Sequence[Square], style: Mapping[str, Any], place: int) -> Any:
    """Means in a band of ± one standard deviation, interrupted where there is none; × at the foot for what failed."""
    ys = [mean_and_spread(list(square.by_seed.values())) if square.by_seed else (math.nan, None) for square in squares]
    low, high = ([mean + sign * (spread or 0.0) for mean, spread in ys] for sign in (-1, 1))
    axes_of.fill_between(xs, low, high, color=style["color"], alpha=0.12, linewidth=0)
    (drawn,) = axes_of.plot(xs, [mean for mean, _ in ys], **style, linewidth=1.5, markersize=5)
    hollow = [(x, mean) for x, (mean, _), square in zip(xs, ys, squares, strict=True) if square.collapsed]
    for x, mean in hollow:
        axes_of.plot(x, mean, **style, markersize=8, markerfacecolor="white", zorder=3)
    for x, square in zip(xs, squares, strict=True):
        if square.failed and not square.by_seed:
            foot = {"transform": axes_of.get_xaxis_transform(), "markersize": 6, "color": style["color"]}
            axes_of.plot(x, 0.03 + 0.04 * place, marker="x", **foot)
    return drawn
