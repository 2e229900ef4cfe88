"""What the encoders of finished runs make of test images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from ssl_bench.config.schema import Config
from ssl_bench.data.datamodule import DataModule
from ssl_bench.errors import UserError
from ssl_bench.evaluation import features
from ssl_bench.evaluation.saliency import Saliency
from ssl_bench.nn.backbone import stages
from ssl_bench.report.feature_maps import Features
from ssl_bench.report.records import Run
from ssl_bench.report.saliency import Maps
from ssl_bench.results.encoder import read_encoder
from ssl_bench.results.run_folder import RunFolder
from ssl_bench.training.build import build_data, build_evaluator


def features_of_runs(runs: Sequence[Run], data_dir: str | None) -> list[Features]:
    """The features of every run whose encoder is in its folder; data_dir: where the data are, unless as configured."""
    return [
        Features(run, test.x.numpy(), test.labels.numpy(), data.dataset.class_names)
        for run, data, test in _seen(runs, data_dir)
    ]


def maps_of_runs(runs: Sequence[Run], data_dir: str | None, protocol: str) -> list[Maps]:
    """Where these networks look, and what they get right under ``protocol``."""
    found = []
    for run, data, test in _seen(runs, data_dir, saliency=True):
        assert run.entry
        folder, key = RunFolder(run.entry.path.parent), f"{run.entry.record.evaluated}/{protocol}"
        if not folder.predictions.exists():
            continue
        predicted = np.load(folder.predictions)
        if key not in predicted:
            raise UserError(f"{folder.predictions} has no {protocol} of single images: show another protocol.")
        right = predicted[key][test.index.numpy()] == test.labels.numpy()
        found.append(Maps(run, test.x.numpy(), right, data.splits["test"].images))
    return found


def data_of_run(config: Config, digest: str, name: str) -> DataModule:
    """The images that the run called ``name`` was trained on; UserError where those of ``digest`` are not there."""
    data = build_data(config)
    if data.digest != digest:
        raise UserError(f"{config.dataset.name} in data_dir={config.data_dir} is not what {name} was trained on.")
    return data


def _seen(
    runs: Sequence[Run], data_dir: str | None, *, saliency: bool = False
) -> Iterator[tuple[Run, DataModule, features.Features]]:
    """Each run whose encoder is there, its data, and a row per test image: its features, or its saliency."""
    data_of: dict[tuple[str, int], DataModule] = {}
    for run in runs:
        file = RunFolder(run.entry.path.parent).encoder if run.entry and not run.entry.committed else None
        if file is None or not file.exists():
            continue
        assert run.record
        config = run.config.changed({"data_dir": data_dir}) if data_dir else run.config
        key = run.record.data_digest, config.batch_size
        if key not in data_of:
            data_of[key] = data_of_run(config, run.record.data_digest, str(file.parent))
            data_of[key].setup()
        encoder, description = read_encoder(file)
        network: nn.Module = encoder.backbone
        if saliency:
            *_, last = [network, *stages(network).values()]
            network = Saliency(network, last)
        evaluator = build_evaluator(config, data_of[key], description["clean"])
        yield run, data_of[key], evaluator.features(network, torch.device("cpu")).test
