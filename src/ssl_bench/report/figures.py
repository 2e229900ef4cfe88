"""Pictures: how they are saved, and the one of features."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssl_bench.files import write_whole

if TYPE_CHECKING:  # reports are made without it
    from torch import Tensor

PERPLEXITY = 30.0
ITERATIONS = 500  # twice as many take twice as long, for a divergence of 0.56 in place of 0.58 on digits
SAME = 1e-6  # of the largest feature: points whose differences are smaller are one, but for rounding
LEGEND_CLASSES = 20  # more names than that nobody reads
LEGEND_LETTERS = 24
CLASS_MARKS = "os^Dvxp+*<"  # of classes in the order of their numbers, so that they are told apart in gray


def tsne_picture(
    path: Path, features: Tensor, labels: Tensor, *, names: Sequence[str], title: str, seed: int, limit: int
) -> None:
    """Draw features ``[N, F]`` in the plane, coloured by class (van der Maaten & Hinton 2008).

    names: of the classes. At most ``limit`` images are drawn, for t-SNE's cost grows faster than their number.
    """
    rows = spread(len(features), limit)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    plane = plane_of(np.ascontiguousarray(features[rows].cpu().numpy()), seed)
    handles = scatter(axes, plane, labels[rows].cpu().numpy(), names)
    axes.set_title(title, fontsize=10)
    if handles:
        legend = axes.legend(
            handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2
        )
        for text in legend.get_texts():
            text.set_parse_math(False)  # a class may be called $cash$, which is no formula
    save(path, figure, dpi=120)


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most so many positions among ``count``, evenly apart: folders are sorted by class."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def plane_of(points: NDArray[Any], seed: int) -> NDArray[Any]:
    """``[N, F]`` arranged in the plane by t-SNE, ``[N, 2]``."""
    from sklearn.manifold import TSNE

    if len(points) <= 2:  # of two points or none there is nothing to arrange
        return points[:, :2]
    largest, points = np.abs(points).max(), points - points.mean(axis=0)
    spread = np.abs(points).max()
    if spread <= SAME * largest:  # as of a collapsed network: scikit-learn divides by this, then crashes
        return np.zeros((len(points), 2))
    points = points / spread
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    arrangement = TSNE(perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=seed, n_jobs=1)
    plane: NDArray[Any] = arrangement.fit_transform(points)
    return plane


def scatter(axes: Any, plane: NDArray[Any], classes: NDArray[Any], names: Sequence[str]) -> dict[str, Any]:
    """Draw points ``[N, 2]`` in a colour and with a mark for each class; what to name, of few classes alone."""
    known = np.unique(classes)
    few = len(known) <= LEGEND_CLASSES
    colours = colormaps["tab10" if len(known) <= 10 else "tab20" if few else "nipy_spectral"]
    handles = {}
    for place, label in enumerate(known):
        rows = classes == label
        colour = colours(place if few else place / (len(known) - 1))
        mark = CLASS_MARKS[place % len(CLASS_MARKS)]
        handle = axes.scatter(plane[rows, 0], plane[rows, 1], color=colour, s=9, marker=mark, linewidths=0.7)
        handles[drawable(names[label], LEGEND_LETTERS)] = handle
    axes.set_xticks([])
    axes.set_yticks([])
    return handles if few else {}


def above_notes(width: float, height: float, notes: Sequence[str]) -> tuple[Figure, Any]:
    """A figure with ``notes`` at its foot, and the part of it above them, of so many inches."""
    lines = [line for note in notes for line in textwrap.wrap(note, int(width * 18))]
    below_height = 0.14 * len(lines) + 0.1
    figure = Figure(figsize=(width, height + below_height), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[height, below_height])
    above, below = parts
    below.text(0.01, 1, "\n".join(lines), fontsize=7, ha="left", va="top")
    return figure, above


def legend_below(above: Any, width: float, handles: Mapping[str, Any], *, points: bool = False) -> None:
    """One legend for all panels of a part of a figure, which is ``width`` inches wide; of lines, or of small points."""
    columns = max(2, int(width / (1.2 + 0.07 * max(map(len, handles), default=0))))
    above.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize=8, frameon=False,
        handlelength=1 if points else 4, markerscale=2 if points else 1,
    )  # fmt: skip


def save(path: Path, figure: Figure, *, dpi: int) -> None:
    """Write ``figure`` as PNG, whole."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # letters that the font lacks are drawn as boxes
        write_whole(path, lambda temporary: figure.savefig(temporary, dpi=dpi, metadata={"Software": None}))


def drawable(name: str, room: int) -> str:
    """``name`` in at most ``room`` letters; that of a file or folder need not be text."""
    text = name.encode(errors="backslashreplace").decode()
    return text if len(text) <= room else f"{text[: room - 1]}…"
