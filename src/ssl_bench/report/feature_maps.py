"""What the encoders of finished runs make of test images: maps by t-SNE, and measures of how far classes are apart.

The measures are of the features themselves, by cosine, since a map shows distances between clusters as it likes.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ssl_bench.config.experiments import Experiment
from ssl_bench.errors import UserError
from ssl_bench.report.comparison import Table, TableCell, epochs, figure, reference
from ssl_bench.report.provenance import command, provenance
from ssl_bench.report.records import Run
from ssl_bench.report.statistics import mean_and_spread
from ssl_bench.report.tables import NAMES

NEIGHBOURS = 10  # of the neighbourhood hit
MEASURES = {"silhouette": 3, "neighbourhood hit, %": 1}  # digits behind the point
HEADING = ("dataset", "row", "seed", "measure", "value", "fingerprint", "command")
ACROSS = 4  # maps
IMAGES = 1000  # of a map


@dataclass(frozen=True)
class Features:
    """Test images as a run's encoder sees them, or random weights or raw pixels in its place."""

    run: Run
    points: NDArray[np.float32]  # [N, F]
    labels: NDArray[np.int64]  # [N]
    names: Sequence[str]  # of the classes
    network: str | None = None  # "random" or "pixels"; None: the deployed one

    @functools.cached_property
    def measures(self) -> dict[str, float]:
        """MEASURES by name."""
        from sklearn.metrics import silhouette_score
        from sklearn.neighbors import NearestNeighbors

        lengths = np.linalg.norm(self.points, axis=1, keepdims=True)
        directions = self.points / np.maximum(lengths, np.finfo(np.float32).tiny)
        nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(directions) - 1)).fit(directions)
        near = nearest.kneighbors(return_distance=False)  # of each among the others
        hit = 100 * float((self.labels[near] == self.labels[:, None]).mean())
        return dict(
            zip(MEASURES, (float(silhouette_score(directions, self.labels, metric="cosine")), hit), strict=True)
        )


def require_classes(found: Sequence[Features]) -> None:
    """UserError where silhouettes are not defined: of one class, or of as many as images."""
    for one in found:
        classes = len(np.unique(one.labels))
        if not 1 < classes < len(one.labels):
            raise UserError(
                f"{one.run.cell.dataset}: the classes of its {len(one.labels)} labelled test images are {classes}, and "
                "a silhouette needs at least two, one of them with two images."
            )


def table(experiment: Experiment, runs: Sequence[Run], found: Sequence[Features]) -> Table:
    """Measures of every row, mean and spread over seeds."""
    protocols = experiment.show["protocols"]
    ranked = {}
    beside = {}  # random weights and raw pixels
    for dataset, (network, label) in itertools.product(dict.fromkeys(run.cell.dataset for run in runs), NAMES.items()):
        here = [one for one in found if (one.run.cell.dataset, one.network) == (dataset, network)]
        if not here:  # no encoder of the dataset is there
            continue
        of_dataset = [run for run in runs if run.cell.dataset == dataset]
        by_seed = [reference(of_dataset, name, network) for name in protocols]
        cells = [TableCell(figure(one, wanted=len(one))) for one in by_seed]
        beside[f"{dataset}, {label}"] = [*_measures(here, len(here)), *cells]
    for dataset, row in dict.fromkeys((run.cell.dataset, run.cell.row) for run in runs):
        here = [one for one in encoders(found) if (one.run.cell.dataset, one.run.cell.row) == (dataset, row)]
        wanted = sum((run.cell.dataset, run.cell.row) == (dataset, row) for run in runs)
        percents = [[p for one in here if (p := one.run.percents(name)) is not None] for name in protocols]
        cells = [TableCell(measured(of_one, 1, wanted)) for of_one in percents]
        ranked[f"{dataset}, {row}"] = [*_measures(here, wanted), *cells]
    return Table(
        title=experiment.show["title"],
        columns=[*MEASURES, *(f"{name}, %" for name in protocols)],
        ranked=ranked,
        reference=beside,
        notes=notes(runs, found),
    )


def _measures(here: Sequence[Features], wanted: int) -> list[TableCell]:
    return [
        TableCell(measured([one.measures[name] for one in here], digits, wanted)) for name, digits in MEASURES.items()
    ]


def encoders(found: Sequence[Features]) -> list[Features]:
    """Those of runs, without random weights and raw pixels."""
    return [one for one in found if one.network is None]


def measured(values: Sequence[float], digits: int, wanted: int) -> str:
    """Mean and spread over seeds as a cell of a table, and how many there are where more are ``wanted``."""
    if not values:
        return f"– (0/{wanted})"
    mean, spread = mean_and_spread(values)
    text = f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")
    return text if len(values) == wanted else f"{text} ({len(values)}/{wanted})"


def notes(runs: Sequence[Run], found: Sequence[Features]) -> list[str]:
    """What stands below."""
    return [
        "Of the deployed encoder's features of test images, by cosine, mean ± standard deviation over seeds: "
        f"silhouette, and the share of an image's {NEIGHBOURS} nearest others that are of its class. In both, random "
        "weights have untouched BatchNorm statistics.",
        *_made(runs, found),
    ]


def _made(runs: Sequence[Run], found: Sequence[Features]) -> list[str]:
    """By what, for the table and the picture."""
    return [
        f"Scale {runs[0].config.scale.name}, batch {runs[0].config.batch_size}; {epochs(runs)}.",
        *missing(len(encoders(found)), runs),
        *provenance(runs),
    ]


def missing(found: int, runs: Sequence[Run]) -> list[str]:
    """A line on the runs whose encoders are not here."""
    return [f"Encoders of {found} of {len(runs)} runs are here."] if found < len(runs) else []


class Measured(Protocol):
    """What a run's encoder was measured by."""

    @property
    def run(self) -> Run: ...

    @property
    def network(self) -> str | None: ...

    @property
    def measures(self) -> dict[str, float]: ...


def _row(one: Measured) -> str:
    return NAMES[one.network] if one.network else one.run.cell.row


def results(experiment: Experiment, found: Sequence[Measured]) -> Iterator[tuple[object, ...]]:
    """One line of HEADING for every measure of every run, and for what it has under the protocols that are shown."""
    for one in found:
        assert one.run.record
        cell = one.run.cell
        percents = {f"{name}, %": one.run.percents(name, one.network) for name in experiment.show["protocols"]}
        for name, value in {**one.measures, **percents}.items():
            if value is not None:
                fingerprint = one.run.record.fingerprint
                yield cell.dataset, _row(one), cell.seed, name, f"{value:.6g}", fingerprint, command(one.run)


def picture(path: Path, experiment: Experiment, runs: Sequence[Run], found: Sequence[Features]) -> None:
    """Draw a map for every row, of its first seed, as PNG, and for random weights and raw pixels.

    Classes have the same colours and marks in all.
    """
    from ssl_bench.report.figures import above_notes, legend_below, plane_of, save, scatter, spread

    first: dict[tuple[str, str], Features] = {}
    for one in found:
        first.setdefault((one.run.cell.dataset, _row(one)), one)
    several = len({dataset for dataset, _ in first}) > 1
    shown = f"Deployed encoders' features of at most {IMAGES:,} test images, of the first seed, t-SNE with seed 0."
    down = math.ceil(len(first) / ACROSS)
    drawn, above = above_notes(2.4 * ACROSS, 2.5 * down + 1.2, [shown, *_made(runs, found)])
    grid = above.subplots(down, ACROSS, squeeze=False).flat
    handles: dict[str, Any] = {}
    for (dataset, row), one in first.items():
        axes = next(grid)
        rows = spread(len(one.points), IMAGES)
        handles |= scatter(axes, plane_of(one.points[rows], 0), one.labels[rows], one.names)
        axes.set_title(f"{dataset}: {row}" if several else row, fontsize=9)
    for axes in grid:
        axes.set_visible(False)
    above.suptitle(experiment.show["title"], fontsize=11, fontweight="bold")
    legend_below(above, 2.4 * ACROSS, handles, points=True)
    save(path, drawn, dpi=150)
