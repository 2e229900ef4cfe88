"""Small real runs of any method: a network of few layers, on one thread so that they repeat and crowd no machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import small_runs
import torch


@pytest.fixture
def fit() -> small_runs.Fit:
    return small_runs.fit


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _few_layers(request: pytest.FixtureRequest) -> None:
    """Not for slow tests, which start processes of their own or show what a method learns."""
    if request.node.get_closest_marker("slow") is None:
        request.getfixturevalue("few_layers")
