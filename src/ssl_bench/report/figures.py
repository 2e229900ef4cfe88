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

from ssl_bench.files import write_whole

if TYPE_CHECKING:  # reports are made without it
    from torch import Tensor

PERPLEXITY = 30.0
ITERATIONS = 500  # twice as many take twice as long, for a divergence of 0.56 in place of 0.58 on digits
LEGEND_CLASSES = 20  # more names than that nobody reads
LEGEND_LETTERS = 24


def tsne_picture(
    path: Path, features: Tensor, labels: Tensor, *, names: Sequence[str], title: str, seed: int, limit: int
) -> None:
    """Draw features ``[N, F]`` in the plane, coloured by class (van der Maaten & Hinton 2008).

    names: of the classes. At most ``limit`` images are drawn, for t-SNE's cost grows faster than their number.
    """
    from sklearn.manifold import TSNE

    points = np.ascontiguousarray(features[:limit].cpu().numpy())
    classes = labels[:limit].cpu().numpy()
    plane = points[:, :2]  # of two points or none there is nothing to arrange
    if len(points) > 2:
        perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
        arrangement = TSNE(perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=seed, n_jobs=1)
        plane = arrangement.fit_transform(points)

    known = np.unique(classes)
    colours = colormaps["tab10" if len(known) <= 10 else "tab20" if len(known) <= LEGEND_CLASSES else "nipy_spectral"]
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    for place, label in enumerate(known):
        rows = classes == label
        colour = colours(place if len(known) <= LEGEND_CLASSES else place / (len(known) - 1))
        axes.scatter(plane[rows, 0], plane[rows, 1], color=colour, s=9, label=str(label))
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    if 0 < len(known) <= LEGEND_CLASSES:
        legend = axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2)
        for text, label in zip(legend.get_texts(), known, strict=True):
            text.set_parse_math(False)  # a class may be called $cash$, which is no formula
            text.set_text(drawable(names[label], LEGEND_LETTERS))
    save(path, figure, dpi=120)


def above_notes(width: float, height: float, notes: Sequence[str]) -> tuple[Figure, Any]:
    """A figure with ``notes`` at its foot, and the part of it above them, of so many inches."""
    lines = [line for note in notes for line in textwrap.wrap(note, int(width * 18))]
    below_height = 0.14 * len(lines) + 0.1
    figure = Figure(figsize=(width, height + below_height), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[height, below_height])
    above, below = parts
    below.text(0.01, 1, "\n".join(lines), fontsize=7, ha="left", va="top")
    return figure, above


def legend_below(above: Any, width: float, handles: Mapping[str, Any]) -> None:
    """One legend for all panels of a part of a figure, which is ``width`` inches wide."""
    columns = max(2, int(width / (1.2 + 0.07 * max(map(len, handles), default=0))))
    above.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize=8, frameon=False,
        handlelength=4,
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
