"""The picture of features: names as they are written, whatever they look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ssl_bench.report import figures


def test_the_legend_names_the_classes_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["$cash$", "_hidden", "日本", "not\udce9text", "a" * 40, "absent"]
    drawn: list[Figure] = []
    save = figures.save

    def watched(path: Path, figure: Figure, *, dpi: int) -> None:
        drawn.append(figure)
        save(path, figure, dpi=dpi)

    monkeypatch.setattr(figures, "save", watched)
    features = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "tsne.png"
    figures.tsne_picture(path, features, torch.arange(50) // 10, names=names, title="t", seed=0, limit=40)
    legend = drawn[0].axes[0].get_legend()
    assert legend is not None
    found = [text.get_text() for text in legend.get_texts()]
    assert found == ["$cash$", "_hidden", "日本", "not\\udce9text", "a" * 23 + "…"]
    assert not any(text.get_parse_math() for text in legend.get_texts())
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("features", [torch.zeros(60, 4), 0.3 + 1e-9 * torch.rand(60, 4)], ids=["dead", "collapsed"])
def test_points_that_are_all_one_are_drawn_as_one(features: torch.Tensor) -> None:
    assert not figures.plane_of(features.numpy(), 0).any()


def test_the_size_of_features_does_not_count() -> None:
    features = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).numpy()
    found = figures.plane_of(features, 0)
    assert np.isfinite(found).all()
    assert np.isfinite(figures.plane_of(1e-30 * features, 0)).all()
    np.testing.assert_allclose(figures.plane_of(2.0**20 * features, 0), found)


@pytest.mark.parametrize(("count", "most"), [(5000, 300), (40, 40), (7, 300), (1, 3), (0, 3)])
def test_images_that_are_sorted_by_class_are_drawn_of_every_class(count: int, most: int) -> None:
    rows = figures.spread(count, most)
    assert len(rows) == len(set(rows.tolist())) == min(count, most)
    labels = np.sort(np.arange(count) % 100)  # as folders have them
    assert set(labels[rows]) == set(labels)
