"""What the encoders of finished runs make of test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ssl_bench.report.feature_maps import Features
from ssl_bench.report.records import Run
from ssl_bench.results.encoder import read_encoder
from ssl_bench.training.build import build_data, build_evaluator


def features_of_runs(runs: Sequence[Run], data_dir: str | None) -> list[Features]:
    """The features of every run whose encoder is in its folder; data_dir: where the data are, unless as configured."""
    found = []
    data_of: dict[tuple[str, int], Any] = {}
    for run in runs:
        file = run.entry.path.parent / "encoder.safetensors" if run.entry and not run.entry.committed else None
        if file is None or not file.exists():
            continue
        config = run.config.changed({"data_dir": data_dir}) if data_dir else run.config
        key = config.dataset.name, config.batch_size
        if key not in data_of:
            data_of[key] = build_data(config)
            data_of[key].setup()
        data = data_of[key]
        encoder, description = read_encoder(file)
        evaluator = build_evaluator(config, data, description["clean"])
        test = evaluator.features(encoder.backbone, torch.device("cpu")).test
        found.append(Features(run, test.x.numpy(), test.labels.numpy(), data.dataset.class_names))
    return found
