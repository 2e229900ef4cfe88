"""Pictures of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from ssl_bench.files import write_whole

PERPLEXITY = 30.0
LEGEND_CLASSES = 20  # more names than that nobody reads


def tsne_picture(path: Path, features: Tensor, labels: Tensor, *, title: str, seed: int, limit: int) -> None:
    """Draw features ``[N, F]`` in the plane, coloured by label (van der Maaten & Hinton 2008).

    At most ``limit`` images are drawn, for t-SNE's cost grows faster than their number.
    """
    from sklearn.manifold import TSNE

    points = np.ascontiguousarray(features[:limit].cpu().numpy())
    classes = labels[:limit].cpu().numpy()
    plane = points[:, :2]  # of two points or none there is nothing to arrange
    if len(points) > 2:
        perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
        plane = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(points)

    known = np.unique(classes)
    colours = colormaps["tab10" if len(known) <= 10 else "tab20" if len(known) <= LEGEND_CLASSES else "nipy_spectral"]
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, label in enumerate(known):
        rows = classes == label
        colour = colours(place if len(known) <= LEGEND_CLASSES else place / (len(known) - 1))
        axes.scatter(plane[rows, 0], plane[rows, 1], color=colour, s=9, label=str(label))
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    if 0 < len(known) <= LEGEND_CLASSES:
        axes.legend(title="class", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2)
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=120, metadata={"Software": None}))
