"""The second dataset of a run's curves (``eval_on``): divided as that of a run on it, seen as the run sees its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssl_bench.callbacks.accuracy_monitor import Elsewhere
from ssl_bench.conditions import require_channels
from ssl_bench.config.compose import compose
from ssl_bench.config.schema import Config
from ssl_bench.data.catalog import Dataset
from ssl_bench.data.datamodule import DataModule, read_on_every_rank
from ssl_bench.training.build import build_data, build_evaluator, clean_arguments


def load(config: Config, dataset: Dataset) -> tuple[DataModule, Elsewhere] | None:
    """Its images, read on every rank, and what scores networks on them; None where there is none.

    dataset: the run's own.
    """
    if config.eval_on is None:
        return None
    # Its own subset and options at this scale; the size of a view and the normalisation are those of the run.
    own = compose([f"dataset={config.eval_on}", f"scale={config.scale.name}"])
    there = replace(config, dataset=own.dataset, subset=own.subset, labels=None)
    data = build_data(there)
    require_channels(config.eval_on, data.dataset.channels, dataset.name, dataset.channels)
    read_on_every_rank(data)
    return data, Elsewhere(config.eval_on, build_evaluator(there, data, clean_arguments(config, dataset)))


def description(data: DataModule) -> dict[str, Any]:
    """What the record holds of it."""
    parts = {part: len(getattr(data.parts, part)) for part in ("bank", "probe", "validation")}
    return {
        "dataset": data.dataset.name,
        "data_digest": data.digest,
        "images": parts | {"test": len(data.splits["test"])},
    }
