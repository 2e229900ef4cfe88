"""Do two networks look at the same places of an image? Saliency of finished runs' encoders beside a reference's.

The overlap of two maps of shares is Σ min(a, b): 1 for equal ones, 0 where they have no place in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_bench.config.experiments import Experiment
from ssl_bench.errors import UserError
from ssl_bench.report.comparison import Table, TableCell, epochs
from ssl_bench.report.feature_maps import measured, missing
from ssl_bench.report.provenance import provenance
from ssl_bench.report.records import Run

LARGE = 0.6  # most images have more, in figure 3 of Cao et al. 2020
FIFTHS = 5  # parts of the images, by overlap
EXAMPLES = 4  # pictures of the largest overlap, and of the smallest
MEASURES = {  # digits behind the point
    "overlap": 3,
    "of different images": 3,
    f"% over {LARGE}": 1,
    "%, least overlap": 1,
    "%, most overlap": 1,
}


@dataclass(frozen=True)
class Maps:
    """Where a run's encoder looks on test images, and which it gets right."""

    run: Run
    shares: NDArray[np.float32]  # [N, h·w], as `evaluation.saliency.Saliency` gives them
    right: NDArray[np.bool_]  # [N], under the protocol that is shown
    images: Any  # [N, C, H, W] uint8, of which single ones are read


@dataclass(frozen=True)
class Pair:
    """A run beside the reference of the same dataset and seed."""

    own: Maps
    other: Maps

    @property
    def run(self) -> Run:
        return self.own.run

    @property
    def network(self) -> None:
        """The deployed one, as of `Features`."""

    @property
    def overlap(self) -> NDArray[np.float64]:
        """Of every image, ``[N]``."""
        return _overlap(self.own.shares, self.other.shares)

    @property
    def chance(self) -> NDArray[np.float64]:
        """Of every image's own map with the reference's of another image, ``[N]``."""
        return _overlap(self.own.shares, np.roll(self.other.shares, len(self.other.shares) // 2, axis=0))

    @property
    def fifths(self) -> list[float]:
        """% of images that the run gets right, from the fifth of least overlap to that of most."""
        order = np.argsort(self.overlap, kind="stable")
        return [100 * float(part.mean()) for part in np.array_split(self.own.right[order], FIFTHS)]

    @property
    def measures(self) -> dict[str, float]:
        """MEASURES by name."""
        overlap, fifths = self.overlap, self.fifths
        large = 100 * float((overlap > LARGE).mean())
        found = (float(overlap.mean()), float(self.chance.mean()), large, fifths[0], fifths[-1])
        return dict(zip(MEASURES, found, strict=True))


def _overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    overlap: NDArray[np.float64] = np.minimum(one, other).sum(1, dtype=np.float64)
    return overlap


def pairs(experiment: Experiment, found: Sequence[Maps]) -> list[Pair]:
    """Every run with the reference's of its seed. Raises UserError if there is none, or their maps differ in size."""
    reference = experiment.show["reference"]
    others = {(one.run.cell.dataset, one.run.cell.seed): one for one in found if one.run.cell.row == reference}
    paired = [
        Pair(one, others[key])
        for one in found
        if one.run.cell.row != reference and (key := (one.run.cell.dataset, one.run.cell.seed)) in others
    ]
    if not paired:
        raise UserError(
            f"{experiment.name}: no run's encoder is there beside that of {reference} of its seed: sweep both."
        )
    for pair in paired:
        if pair.own.shares.shape != pair.other.shares.shape:
            raise UserError(f"{experiment.name}: {pair.run.cell.row} and {reference} have maps of different sizes.")
    return paired


def table(experiment: Experiment, runs: Sequence[Run], found: Sequence[Pair]) -> Table:
    """Measures of every row, mean and spread over seeds."""
    ranked = {}
    for dataset, row in dict.fromkeys((pair.run.cell.dataset, pair.run.cell.row) for pair in found):
        here = [pair.measures for pair in found if (pair.run.cell.dataset, pair.run.cell.row) == (dataset, row)]
        wanted = sum((run.cell.dataset, run.cell.row) == (dataset, row) for run in runs)
        ranked[f"{dataset}, {row}"] = [
            TableCell(measured([measures[name] for measures in here], digits, wanted))
            for name, digits in MEASURES.items()
        ]
    return Table(
        title=experiment.show["title"],
        columns=list(MEASURES),
        ranked=ranked,
        notes=notes(experiment, runs, found),
    )


def notes(experiment: Experiment, runs: Sequence[Run], found: Sequence[Pair]) -> list[str]:
    """What stands below."""
    show = experiment.show
    return [
        f"Overlap of saliency on test images with {show['reference']} of the same seed, mean ± standard deviation over "
        f"seeds, and with its maps of other images, which is what chance gives; {show['protocols'][0]} of the fifth of "
        f"images with least and with most overlap. Maps of {found[0].own.shares.shape[1]} places.",
        *_made(runs, found),
    ]


def _made(runs: Sequence[Run], found: Sequence[Pair]) -> list[str]:
    """By what, for the table and the picture."""
    encoders = {id(maps) for pair in found for maps in (pair.own, pair.other)}
    return [
        f"Scale {runs[0].config.scale.name}, batch {runs[0].config.batch_size}; {epochs(runs)}.",
        *missing(len(encoders), runs),
        *provenance(runs),
    ]


def picture(path: Path, experiment: Experiment, runs: Sequence[Run], found: Sequence[Pair]) -> None:
    """Draw, for every row, overlaps and accuracy by overlap over all seeds, and maps of the first seed, as PNG."""
    from ssl_bench.report.figures import above_notes, save

    rows: dict[tuple[str, str], list[Pair]] = {}
    for pair in found:
        rows.setdefault((pair.run.cell.dataset, pair.run.cell.row), []).append(pair)
    shown = (
        f"Overlap of saliency on test images of all seeds; dotted: {LARGE}. In the middle a line is a seed. Right, of "
        f"the first seed, {EXAMPLES} images of most overlap and {EXAMPLES} of least, and where both networks look: "
        "brighter for more, each map by its own maximum."
    )
    drawn, above = above_notes(12.6, 2.7 * len(rows) + 0.3, [shown, *_made(runs, found)])
    above.suptitle(experiment.show["title"], fontsize=11, fontweight="bold")
    for part, ((dataset, row), here) in zip(np.atleast_1d(above.subfigures(len(rows), 1)), rows.items(), strict=True):
        plots, maps = part.subfigures(1, 2, width_ratios=[0.52, 0.48])
        plots.suptitle(f"{dataset}: {row}", fontsize=9)
        _plot(plots, experiment.show, here)
        _draw_maps(maps, experiment.show["reference"], here[0])
    save(path, drawn, dpi=150)


def _plot(part: Any, show: Mapping[str, Any], here: Sequence[Pair]) -> None:
    shares, accuracy = part.subplots(1, 2)
    of_bins: dict[str, Any] = {"bins": 25, "range": (0, 1)}
    shares.hist(np.concatenate([pair.overlap for pair in here]), **of_bins, color="#aaaaaa", label="same image")
    others = np.concatenate([pair.chance for pair in here])
    shares.hist(others, **of_bins, histtype="step", color="black", linewidth=1, label="different images")
    shares.legend(loc="upper left", fontsize=7, frameon=False)
    shares.axvline(LARGE, color="black", linestyle=":")
    shares.set_xlabel(f"overlap with {show['reference']}", fontsize=8)
    shares.set_ylabel("images, of all seeds", fontsize=8)
    places = np.arange(1, FIFTHS + 1)
    for pair in here:
        accuracy.plot(places, pair.fifths, color="black", marker="o", markersize=3, linewidth=0.8)
    accuracy.set_xticks(places)
    accuracy.set_xlabel("fifth of images, by overlap, least first", fontsize=8)
    accuracy.set_ylabel(f"{show['protocols'][0]}, %", fontsize=8)
    for axes in (shares, accuracy):
        axes.tick_params(labelsize=8)


def _draw_maps(part: Any, reference: str, pair: Pair) -> None:
    """Images of the largest and of the smallest overlap, and where both networks look, brighter for more."""
    order = np.argsort(pair.overlap, kind="stable")
    chosen = [*order[::-1][:EXAMPLES], *order[:EXAMPLES]]
    side = round(pair.own.shares.shape[1] ** 0.5)
    grid = part.subplots(3, len(chosen), squeeze=False)
    for column, number in zip(grid.T, chosen, strict=True):
        image = np.asarray(pair.own.images[int(number)]).transpose(1, 2, 0)
        column[0].imshow(image if image.shape[2] == 3 else image[:, :, 0], cmap="gray")
        column[0].set_title(f"{pair.overlap[number]:.2f}", fontsize=8)
        for axes, maps in zip(column[1:], (pair.own, pair.other), strict=True):
            axes.imshow(maps.shares[number].reshape(side, -1), cmap="gray", vmin=0, interpolation="bilinear")
    for axes, name in zip(grid[:, 0], ("overlap, image", pair.run.cell.row, reference), strict=True):
        axes.set_ylabel(name, fontsize=8)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
