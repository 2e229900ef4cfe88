"""Accuracy over two axes that are options: what stands in a heat map or in lines over numbers, and as tables."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ssl_bench.config.axes import swept_option
from ssl_bench.config.experiments import Experiment
from ssl_bench.report.comparison import (
    COLLAPSED,
    Table,
    TableCell,
    epochs,
    figure,
    number_of_seeds,
    reference,
    seeds_of,
    with_versions,
)
from ssl_bench.report.curves import network_of
from ssl_bench.report.provenance import RESULTS, provenance
from ssl_bench.report.provenance import results as accuracies
from ssl_bench.report.records import Run
from ssl_bench.report.statistics import mean_and_spread
from ssl_bench.report.tables import NAMES
from ssl_bench.results.record import Record

HEADING = (*RESULTS[:2], "column", "accounting", *RESULTS[2:])
COSTS: dict[
    str, tuple[str, Callable[[Record], float | None]]
] = {  # of show.costs: what stands beside the axis, and how much of it a record has
    "seconds": ("seconds of one core, training", lambda record: record.core_seconds),
    "memory": ("peak memory of the process, MB", lambda record: _megabytes(record.peak_memory_bytes)),
}
NAMED = 4  # squares that a note names; of the others it gives the number


@dataclass(frozen=True)
class Square:
    """What there is of the runs at one position: percent by seed, how many were wanted, failed, and collapsed."""

    by_seed: dict[int, float]
    wanted: int
    failed: int
    collapsed: int

    @property
    def text(self) -> str:
        shown = figure(self.by_seed, wanted=self.wanted, failed=self.failed)
        return f"{shown}, collapsed {self.collapsed}/{len(self.by_seed)}" if self.collapsed else shown

    @property
    def lines(self) -> list[str]:
        """The same for a small square: the mean, or why there is none, and what makes it doubtful."""
        if not self.by_seed:
            return ["failed" if self.failed else "–"]
        mean, spread = mean_and_spread(list(self.by_seed.values()))
        few = len(self.by_seed) < self.wanted
        scored = len(self.by_seed)
        collapsed = f"collapsed {self.collapsed}/{scored}" if self.collapsed < scored else "collapsed"
        below = collapsed if self.collapsed else f"{scored}/{self.wanted}" if few else ""
        return [f"{mean:.1f}", *filter(None, [below or (f"± {spread:.1f}" if spread is not None else "")])]


@dataclass(frozen=True)
class Panel:
    """One grid of squares, by row and column."""

    dataset: str
    accounting: str
    protocol: str  # "" where it shows a cost
    of: str  # network or cost
    measure: str  # what its figures are, with their unit
    title: str
    squares: dict[tuple[str, str], Square]
    runs: list[Run]

    @property
    def kind(self) -> tuple[str, str, str]:
        """Panels of one kind differ in their accounting alone."""
        return self.dataset, self.protocol, self.of

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.squares))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for _, column in self.squares))

    def baselines(self) -> dict[str, dict[str, dict[int, float]]]:
        """Percent of random weights and raw pixels by column and seed, where there are any; costs have none."""
        of = {column: [run for run in self.runs if run.cell.position.column == column] for column in self.columns}
        found = {
            label: {column: reference(runs, self.protocol, name) for column, runs in of.items()}
            for name, label in NAMES.items()
        }
        return {label: columns for label, columns in found.items() if any(columns.values())}

    def levels(self) -> dict[str, list[float]]:
        """Their means column by column; nan where there are none."""
        return {
            label: [statistics.fmean(by_seed.values()) if by_seed else math.nan for by_seed in columns.values()]
            for label, columns in self.baselines().items()
        }

    def levels_in_words(self) -> str:
        """``random weights 29.1, raw pixels 35.5``, or from which to which they go over the columns."""
        shown = []
        for label, means in self.levels().items():
            known = list(filter(math.isfinite, means))
            shown.append(f"{label} {' to '.join(dict.fromkeys([f'{min(known):.1f}', f'{max(known):.1f}']))}")
        return ", ".join(shown)

    def notes(self) -> list[str]:
        """Which squares have no accuracy, or one that means little."""
        kinds: dict[str, dict[tuple[str, str], int]] = {
            "failed": {at: square.failed for at, square in self.squares.items()},
            "collapsed": {at: square.collapsed for at, square in self.squares.items()},
            "missing": {at: square.wanted - square.failed - len(square.by_seed) for at, square in self.squares.items()},
        }
        return [
            f"{kind}: {self._named({at: count for at, count in counts.items() if count > 0})}"
            for kind, counts in kinds.items()
            if any(count > 0 for count in counts.values())
        ]

    def _named(self, counts: Mapping[tuple[str, str], int]) -> str:
        """The squares, each with the number of its runs where that is not all."""
        names = []
        for (row, column), count in list(counts.items())[:NAMED]:
            wanted = self.squares[row, column].wanted
            name = f"{row} at {column.partition('=')[2] or column}" if column else row
            names.append(name if count == wanted else f"{name} ({count} of {wanted})")
        return ", ".join(names) + (f" and {len(counts) - NAMED} more" if len(counts) > NAMED else "")


def axis_label(experiment: Experiment) -> str:
    """What the columns are: as ``show.axis`` calls it, or their option; empty for labels."""
    return str(experiment.show["axis"] or swept_option(experiment.sweep) or "")


def panels(experiment: Experiment, runs: Sequence[Run]) -> list[Panel]:
    """By dataset, protocol and network or cost, and accounting; accountings vary fastest."""
    show = experiment.show
    datasets = dict.fromkeys(run.cell.dataset for run in runs)
    accountings = dict.fromkeys(run.cell.position.accounting for run in runs)
    shown = [*itertools.product(show["protocols"], show["networks"]), *(("", cost) for cost in show["costs"])]
    found = []
    for dataset, (protocol, of), accounting in itertools.product(datasets, shown, accountings):
        here = [run for run in runs if (run.cell.dataset, run.cell.position.accounting) == (dataset, accounting)]
        if not here:  # of a figure as committed, not every panel has records
            continue
        parts = [accounting, of if protocol and len(show["networks"]) > 1 else "", f"{protocol or of} on {dataset}"]
        squares = {
            (row, column): _square([run for run in here if run.cell.position[:2] == (row, column)], protocol, of)
            for row, column in dict.fromkeys(run.cell.position[:2] for run in here)
        }
        measure = f"accuracy on {here[0].on} images, %" if protocol else COSTS[of][0]
        found.append(Panel(dataset, accounting, protocol, of, measure, ", ".join(filter(None, parts)), squares, here))
    return found


def _square(runs: Sequence[Run], protocol: str, of: str) -> Square:
    """Of one protocol and the network ``of``, or of the cost ``of``."""

    def shown(run: Run) -> str | None:
        return network_of(run.record, of) if run.record else None

    def value(run: Run) -> float | None:
        if run.record is None or not protocol:
            return COSTS[of][1](run.record) if run.record else None
        return run.percents(protocol, shown(run))

    values = {run.cell.seed: found for run in runs if (found := value(run)) is not None}
    collapsed = sum(run.collapsed(protocol, shown(run)) for run in runs) if protocol else 0
    return Square(values, len(runs), sum(run.failure is not None for run in runs), collapsed)


def _megabytes(size: int | None) -> float | None:
    return None if size is None else size / 1e6


def tables(experiment: Experiment, runs: Sequence[Run]) -> list[Table]:
    """One for every panel; notes stand below the last."""
    found = [
        Table(
            title=f"{experiment.show['title']}: {panel.title}",
            columns=panel.columns,
            ranked={
                row: [TableCell(panel.squares[row, column].text) for column in panel.columns] for row in panel.rows
            },
            reference={
                label: [TableCell(figure(columns[column], wanted=len(columns[column]))) for column in panel.columns]
                for label, columns in panel.baselines().items()
            },
            notes=[],
        )
        for panel in panels(experiment, runs)
    ]
    found[-1].notes.extend(notes(experiment, runs))
    return found


def notes(experiment: Experiment, runs: Sequence[Run]) -> list[str]:
    """What stands below."""
    several = max(seeds_of(runs).values()) > 1
    spread = f"mean ± standard deviation over {number_of_seeds(runs)}" if several else "one seed"
    return [
        f"% of {runs[0].on} images, {spread}; {with_versions(experiment.show['protocols'], runs)}, scale "
        f"{runs[0].config.scale.name}; {epochs(runs)}.",
        *(
            [COLLAPSED]
            if any(panel.squares[at].collapsed for panel in panels(experiment, runs) for at in panel.squares)
            else []
        ),
        *_in_place_of(experiment.show["networks"], runs),
        *provenance(runs),
    ]


def _in_place_of(networks: Sequence[str], runs: Sequence[Run]) -> Iterator[str]:
    """Lines about rows that lack the teacher that is asked for."""
    for wanted in networks:
        if wanted != "deployed":
            rows = {
                run.cell.position.row: None for run in runs if run.record and network_of(run.record, wanted) != wanted
            }
            if rows:
                yield f"No {wanted} in {', '.join(rows)}: the network that is deployed is shown."


def results(runs: Sequence[Run]) -> Iterator[tuple[object, ...]]:
    """One line of HEADING for every accuracy on test images in the records."""
    return accuracies(runs, place=lambda cell: cell.position)
