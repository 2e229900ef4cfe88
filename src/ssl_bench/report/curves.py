"""Accuracy over epochs: one line per row of a figure, the mean over seeds in a band of their spread."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_bench.config.experiments import Experiment, passes_per_epoch
from ssl_bench.report.comparison import epochs, number_of_seeds, reference, seeds_of, with_versions
from ssl_bench.report.palette import LINES, row_colours, row_styles
from ssl_bench.report.provenance import command, provenance
from ssl_bench.report.records import Run
from ssl_bench.report.statistics import FEWEST, mean_and_spread
from ssl_bench.report.tables import NAMES
from ssl_bench.results.record import PROJECTOR, Record

PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
THIN = {"color": "#777777", "linewidth": 0.8, "linestyle": LINES["dotted"], "zorder": 1}
CLOSE = 0.2  # of a panel's height; names of lines that are closer would overlap
CURVES = ("dataset", "row", "seed", "network", "protocol", "epoch", "percent", "fingerprint", "command")


@dataclass(frozen=True)
class Point:
    """The seeds' accuracies at one epoch."""

    epoch: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One row of a figure on one dataset."""

    row: str
    dataset: str
    network: str
    points: list[Point]
    seeds: int
    wanted: int


def network_of(record: Record, wanted: str) -> str:
    """``wanted`` where the record has it, or where it is the projector; else the deployed network."""
    return wanted if wanted in (*record.results, PROJECTOR) else record.evaluated


def points(run: Run, protocol: str, network: str) -> list[tuple[float, float]]:
    """Epoch and percent on the run's images; an epoch is as many passes over the images as the method counts."""
    if run.record is None:
        return []
    curve = run.record.curves.get(f"{run.on}/{protocol}/{network_of(run.record, network)}", [])
    return [
        (epoch / passes_per_epoch(run.config), percent)
        for epoch, percent in curve
        if epoch is not None and percent is not None
    ]


def lines(runs: Sequence[Run], protocol: str, network: str) -> list[Line]:
    """Means over seeds; the band is ± one standard deviation, from lowest to highest where only two seeds are there."""
    found = []
    for dataset, row in dict.fromkeys((run.cell.dataset, run.cell.row) for run in runs):
        here = [run for run in runs if (run.cell.dataset, run.cell.row) == (dataset, row)]
        records = [run.record for run in here if run.record]
        by_epoch: dict[float, list[float]] = {}
        for run in here:
            for epoch, percent in points(run, protocol, network):
                by_epoch.setdefault(epoch, []).append(percent)
        shown = network_of(records[0], network) if records else network
        known = [_point(epoch, by_epoch[epoch]) for epoch in sorted(by_epoch)]
        found.append(Line(row, dataset, shown, known, len(records), len(here)))
    return found


def _point(epoch: float, values: Sequence[float]) -> Point:
    mean, spread = mean_and_spread(values)
    if spread is None or len(values) < FEWEST:
        return Point(epoch, mean, min(values), max(values))
    return Point(epoch, mean, mean - spread, mean + spread)


def results(runs: Sequence[Run], protocol: str, network: str) -> Iterator[tuple[object, ...]]:
    """One line of CURVES for every point of every seed."""
    for run in runs:
        if record := run.record:
            cell, shown = (run.cell.dataset, run.cell.row, run.cell.seed), network_of(record, network)
            again = command(run)
            for epoch, percent in points(run, protocol, network):
                yield *cell, shown, protocol, f"{epoch:g}", percent, record.fingerprint, again


def notes(experiment: Experiment, runs: Sequence[Run]) -> list[str]:
    """What stands under the picture."""
    protocol = experiment.show["protocol"]
    counts = seeds_of(runs).values()  # of each dataset
    seeds = max(counts)
    band = "± one standard deviation" if seeds >= FEWEST else "from lowest to highest"
    if 1 < min(counts) < FEWEST <= seeds:
        band += " (from lowest to highest of two seeds)"
    fewer = " (fewer where a panel states so)" if any(run.record is None for run in runs) else ""
    spread = f"mean over {number_of_seeds(runs)}{fewer}, band {band}" if seeds > 1 else "one seed"
    scale = runs[0].config.scale.name
    return [
        f"% of {runs[0].on} images, {with_versions([protocol], runs)}, scale {scale}, {spread}; {epochs(runs)}.",
        *provenance(runs),
    ]


def epoch_label(runs: Sequence[Run]) -> str:
    """What the axis counts."""
    single = [run.config.method.options for run in runs if passes_per_epoch(run.config) == 1]
    if len(single) == len(runs):
        return "epoch (a pass over the images)"
    in_all = all(options.get("lookahead", 1) == 1 for options in single)
    return "epoch (of K passes over the images)" if in_all else "epoch (a pass, or several, as stated below)"


def picture(path: Path, experiment: Experiment, runs: Sequence[Run]) -> None:
    """Draw the figure as PNG: a row of panels for each dataset, a column for each group of methods."""
    from matplotlib.ticker import MaxNLocator

    from ssl_bench.report.figures import above_notes, legend_below, save

    show = experiment.show
    protocol, network = show["protocol"], show["network"]
    found = lines(runs, protocol, network)
    panels: dict[str, list[str]] = show["panels"] or {"": list(experiment.rows)}
    datasets = list(dict.fromkeys(line.dataset for line in found))
    drawn_as = styles(experiment)
    width = max(4.6 * len(panels) + 0.6, 6.4)
    figure, above = above_notes(width, 3.2 * len(datasets) + 1.2, notes(experiment, runs))
    grid = above.subplots(len(datasets), len(panels), squeeze=False, sharey="row")
    handles: dict[str, Any] = {}
    for dataset, places in zip(datasets, grid, strict=True):
        here = [run for run in runs if run.cell.dataset == dataset]
        for (panel, rows), axes in zip(panels.items(), places, strict=True):
            shown = [line for line in found if line.dataset == dataset and line.row in rows]
            for number, line in enumerate(line for line in shown if line.points):
                other = line.network != network and network != "deployed"
                name = f"{line.row} ({line.network})" if other else line.row
                handles.setdefault(name, _draw(axes, line, drawn_as[line.row], number))
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
            axes.set_title(f"{dataset}: {panel}" if panel else dataset, fontsize=10)
            axes.set_xlabel(epoch_label([run for run in here if run.cell.row in rows]), fontsize=8)
            axes.tick_params(labelsize=8)
            axes.grid(visible=True, color="#e5e5e5", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            if lacking(shown):
                text = textwrap.fill(lacking(shown), 44)
                axes.text(0.99, 0.02, text, transform=axes.transAxes, fontsize=7, ha="right", va="bottom", bbox=PAPER)
        references(places, here, protocol)
        places[0].set_ylabel(f"{protocol} accuracy on {runs[0].on} images, %", fontsize=8)
    above.suptitle(show["title"], fontsize=11, fontweight="bold")
    legend_below(above, width, handles)
    save(path, figure, dpi=150)


def lacking(shown: Sequence[Line]) -> str:
    """Which lines of a panel are means over fewer seeds than wanted, and which are not there."""
    fewer = [f"{line.row} ({line.seeds}/{line.wanted})" for line in shown if 0 < line.seeds < line.wanted]
    without = [line.row for line in shown if not line.points]
    notes_below = [f"seeds: {', '.join(fewer)}"] if fewer else []
    return "; ".join([*notes_below, f"missing: {', '.join(without)}"] if without else notes_below)


def styles(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """How each row is drawn, as Matplotlib takes it."""
    colours, shapes = row_colours(experiment.rows), row_styles(experiment.rows)
    return {
        row: {"color": colours[row], "linestyle": LINES[line], "marker": mark} for row, (line, mark) in shapes.items()
    }


def _draw(axes: Any, line: Line, style: Mapping[str, Any], number: int) -> Any:
    x = [point.epoch for point in line.points]
    axes.fill_between(
        x, [p.low for p in line.points], [p.high for p in line.points], color=style["color"], alpha=0.15, linewidth=0
    )
    step = max(1, len(x) // 7)  # marks of different lines stand at different epochs
    (drawn,) = axes.plot(
        x, [p.mean for p in line.points], **style, linewidth=1.5, markersize=5, markevery=(number % step, step)
    )
    return drawn


def text(experiment: Experiment, runs: Sequence[Run]) -> str:
    """The last accuracy of every line, and what stands under the picture."""
    shown = [f"{experiment.name}: {experiment.show['title']}, last epoch"]
    for line in lines(runs, experiment.show["protocol"], experiment.show["network"]):
        last = f"{line.points[-1].mean:.1f} % at epoch {line.points[-1].epoch:g}" if line.points else "–"
        shown.append(f"  {line.dataset}, {line.row}: {last} ({line.network}, {line.seeds}/{line.wanted} seeds)")
    return "\n".join([*shown, *(f"- {note}" for note in notes(experiment, runs))]) + "\n"


def references(row: Sequence[Any], runs: Sequence[Run], protocol: str) -> None:
    """Random weights and raw pixels as thin lines in a row of panels, named at its right."""
    found = {name: reference(runs, protocol, network) for network, name in NAMES.items()}
    levels = {name: mean_and_spread(list(by_seed.values()))[0] for name, by_seed in found.items() if by_seed}
    for axes in row:
        for level in levels.values():
            axes.axhline(level, **THIN)
    name_at_right(row[-1], levels)


def name_at_right(axes: Any, levels: Mapping[str, float]) -> None:
    """Write what is at one or two levels beside a panel."""
    low, high = axes.get_ylim()
    close = len(levels) == 2 and max(levels.values()) - min(levels.values()) < CLOSE * (high - low)
    for name, level in levels.items():
        beside = "center" if not close else "top" if level == min(levels.values()) else "bottom"
        axes.annotate(
            name.replace(" ", "\n"), (1, level), (3, 0), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", fontsize=7, color="#555555", va=beside, annotation_clip=False,
        )  # fmt: skip
