"""Accuracy over epochs: one line per row of a figure, the mean over seeds in a band of their spread."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_bench.experiments import Experiment
from ssl_bench.report.comparison import epochs, passes_per_epoch, reference
from ssl_bench.report.palette import METHODS, row_colours
from ssl_bench.report.records import Run, absent, command, provenance
from ssl_bench.report.statistics import FEWEST, mean_and_spread
from ssl_bench.report.tables import NAMES
from ssl_bench.results.files import write_whole

LINES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*<>hd"
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


def network_of(record: Mapping[str, Any], wanted: str) -> str:
    """The network of a record that a figure of ``wanted`` shows: what is deployed, where there is no such network."""
    return wanted if wanted in record["results"] else str(record["evaluated"])


def points(run: Run, config: Mapping[str, Any], protocol: str, network: str) -> list[tuple[float, float]]:
    """Epoch and percent on test images; an epoch is as many passes over the images as the method says."""
    assert run.record is not None
    curve = run.record["curves"].get(f"test/{protocol}/{network_of(run.record, network)}", [])
    return [(epoch / passes_per_epoch(config), percent) for epoch, percent in curve if percent is not None]


def lines(runs: Sequence[Run], configs: Sequence[Mapping[str, Any]], protocol: str, network: str) -> list[Line]:
    """Means over seeds; the band is ± one standard deviation, from lowest to highest where only two seeds are there."""
    found = []
    for dataset, row in dict.fromkeys((run.cell.dataset, run.cell.row) for run in runs):
        here = [(r, c) for r, c in zip(runs, configs, strict=True) if (r.cell.dataset, r.cell.row) == (dataset, row)]
        there = [(run, config) for run, config in here if run.record]
        by_epoch: dict[float, list[float]] = {}
        for run, config in there:
            for epoch, percent in points(run, config, protocol, network):
                by_epoch.setdefault(epoch, []).append(percent)
        shown = network_of(there[0][0].record or {}, network) if there else network
        known = [_point(epoch, by_epoch[epoch]) for epoch in sorted(by_epoch)]
        found.append(Line(row, dataset, shown, known, len(there), len(here)))
    return found


def _point(epoch: float, values: Sequence[float]) -> Point:
    mean, spread = mean_and_spread(values)
    if spread is None or len(values) < FEWEST:
        return Point(epoch, mean, min(values), max(values))
    return Point(epoch, mean, mean - spread, mean + spread)


def results(
    runs: Sequence[Run], configs: Sequence[Mapping[str, Any]], protocol: str, network: str
) -> Iterator[tuple[object, ...]]:
    """One line of CURVES for every point of every seed."""
    for run, config in zip(runs, configs, strict=True):
        if run.record is None:
            continue
        name, again, shown = run.record["fingerprint"], command(run), network_of(run.record, network)
        for epoch, percent in points(run, config, protocol, network):
            yield run.cell.dataset, run.cell.row, run.cell.seed, shown, protocol, f"{epoch:g}", percent, name, again


def notes(experiment: Experiment, runs: Sequence[Run], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands under the picture."""
    protocol = experiment.show["protocol"]
    seeds = len({run.cell.seed for run in runs})
    version = next(run.record["protocols"][protocol] for run in runs if run.record)
    band = "± one standard deviation" if seeds >= FEWEST else "from lowest to highest"
    spread = f"mean over {seeds} seeds, band {band}" if seeds > 1 else "one seed"
    scale = configs[0]["scale"]["name"]
    return [
        f"{protocol} v{version}, scale {scale}, {spread}; {epochs(runs, configs)}.",
        *provenance(runs),
        *absent(runs),
    ]


def epoch_label(configs: Sequence[Mapping[str, Any]]) -> str:
    """What the axis counts."""
    several = sorted({passes_per_epoch(config) for config in configs} - {1})
    if not several:
        return "epoch (a pass over the images)"
    return f"epoch (K passes over the images, as teacher steps; here K = {', '.join(map(str, several))}, others 1)"


def picture(path: Path, experiment: Experiment, runs: Sequence[Run], configs: Sequence[Mapping[str, Any]]) -> None:
    """Draw the figure as PNG: a row of panels for each dataset, a column for each group of methods."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    show = experiment.show
    protocol = show["protocol"]
    found = lines(runs, configs, protocol, show["network"])
    panels: dict[str, list[str]] = show.get("panels") or {"": list(experiment.rows)}
    datasets = list(dict.fromkeys(line.dataset for line in found))
    looks = styles(experiment)
    width = max(4.6 * len(panels) + 0.6, 6.4)
    figure = Figure(figsize=(width, 3.3 * len(datasets) + 1.3), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(datasets), len(panels), squeeze=False, sharey="row")
    handles: dict[str, Any] = {}
    for dataset, places in zip(datasets, grid, strict=True):
        here = [run for run in runs if run.cell.dataset == dataset]
        for (panel, rows), axes in zip(panels.items(), places, strict=True):
            shown = [line for line in found if line.dataset == dataset and line.row in rows and line.points]
            for number, line in enumerate(shown):
                handles.setdefault(_name(line, show["network"], found), _draw(axes, line, looks[line.row], number))
            _references(axes, here, protocol)
            axes.set_title(f"{dataset}: {panel}" if panel else dataset, fontsize=10)
            axes.set_xlabel(epoch_label(configs), fontsize=8)
            axes.tick_params(labelsize=8)
            axes.grid(visible=True, color="#e5e5e5", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        places[0].set_ylabel(f"{protocol} accuracy on test images, %", fontsize=8)
    figure.suptitle(show["title"], fontsize=11, fontweight="bold")
    said = [part for note in notes(experiment, runs, configs) for part in textwrap.wrap(note, int(width * 17))]
    figure.supxlabel("\n".join(said), fontsize=7, x=0.01, ha="left")
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=max(2, int(width / 2.3)), fontsize=8,
        frameon=False, handlelength=3.5,
    )  # fmt: skip
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=150, metadata={"Software": None}))


def styles(experiment: Experiment) -> dict[str, dict[str, str]]:
    """How a row is drawn, in every picture: in its method's colour, told apart without colours by dashes and marks."""
    colours = row_colours(experiment.rows)
    found: dict[str, dict[str, str]] = {}
    seen: dict[str, int] = {}
    for label, words in experiment.rows.items():
        method = next(word.partition("=")[2] for word in words if word.startswith("method="))
        number = list(METHODS).index(method) + seen.get(method, 0)
        seen[method] = seen.get(method, 0) + 1
        found[label] = {
            "color": colours[label],
            "linestyle": LINES[number % len(LINES)],
            "marker": MARKERS[number % len(MARKERS)],
        }
    return found


def _draw(axes: Any, line: Line, style: Mapping[str, str], number: int) -> Any:
    x = [point.epoch for point in line.points]
    axes.fill_between(
        x, [p.low for p in line.points], [p.high for p in line.points], color=style["color"], alpha=0.15, linewidth=0
    )
    step = max(1, len(x) // 7)  # marks of different lines stand at different epochs
    (drawn,) = axes.plot(
        x, [p.mean for p in line.points], **style, linewidth=1.5, markersize=5, markevery=(number % step, step)
    )
    return drawn


def _name(line: Line, network: str, found: Sequence[Line]) -> str:
    """The row, with its network where that is not the one asked for, and its seeds where some are missing."""
    same = [other for other in found if other.row == line.row]
    other_network = f" ({line.network})" if network in ("student", "teacher") and line.network != network else ""
    seeds = ", ".join(dict.fromkeys(f"{one.seeds}/{one.wanted} seeds" for one in same if one.seeds < one.wanted))
    return f"{line.row}{other_network}" + (f" ({seeds})" if seeds else "")


def _references(axes: Any, runs: Sequence[Run], protocol: str) -> None:
    """Random weights and raw pixels as thin lines, named at the right of the panel."""
    levels = {}
    for network, name in NAMES.items():
        by_seed = reference(runs, protocol, network)
        if by_seed:
            levels[name] = mean_and_spread(list(by_seed.values()))[0]
    for number, (name, level) in enumerate(sorted(levels.items(), key=lambda item: item[1])):
        axes.axhline(level, color="#777777", linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        # Where the two are close, one name stands below its line and one above.
        axes.annotate(
            name.replace(" ", "\n"), (1, level), (3, -2 if number == 0 else 2), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", fontsize=7, color="#555555", va="top" if number == 0 else "bottom",
            annotation_clip=False,
        )  # fmt: skip
