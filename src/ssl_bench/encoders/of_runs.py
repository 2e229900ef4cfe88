"""What the encoders of finished runs make of test images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_bench.config.schema import Config
from ssl_bench.data.datamodule import DataModule
from ssl_bench.errors import UserError
from ssl_bench.evaluation import features
from ssl_bench.evaluation.evaluator import Evaluator
from ssl_bench.evaluation.saliency import Saliency
from ssl_bench.nn.backbone import stages
from ssl_bench.report.feature_maps import Features
from ssl_bench.report.records import Run
from ssl_bench.report.saliency import Maps
from ssl_bench.results.encoder import read_encoder
from ssl_bench.results.run_folder import RunFolder
from ssl_bench.training.build import build_data, build_evaluator, random_network

CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Opened:
    """A run whose encoder is in its folder."""

    run: Run
    data: DataModule
    evaluator: Evaluator
    backbone: nn.Module
    network: dict[str, Any]  # arguments of the backbone

    def test(self, backbone: nn.Module) -> features.Features:
        """Test images as ``backbone`` sees them."""
        return self.evaluator.features(backbone, CPU).test


def features_of_runs(runs: Sequence[Run], data_dir: str | None) -> list[Features]:
    """The features of every run whose encoder is in its folder, and of what it is measured against.

    Random weights once per network and seed, with untouched BatchNorm statistics; raw pixels once per dataset. Both
    come last, each with the first run that it belongs to. data_dir: where the data are, unless as configured.
    """
    found = []
    known = set()
    for one in _opened(runs, data_dir):
        seen: dict[str | None, features.Features] = {None: one.test(one.backbone)}
        if (key := (one.data.digest, repr(one.network), one.run.cell.seed)) not in known:
            seen["random"] = one.test(random_network(one.network, one.run.cell.seed))
        if one.data.digest not in known:
            seen["pixels"] = one.evaluator.pixels(CPU).test
        known |= {key, one.data.digest}
        names = one.data.dataset.class_names
        found += [Features(one.run, test.x.numpy(), test.labels.numpy(), names, of) for of, test in seen.items()]
    return sorted(found, key=lambda one: one.network is not None)


def maps_of_runs(runs: Sequence[Run], data_dir: str | None, protocol: str) -> list[Maps]:
    """Where these networks look, and what they get right under ``protocol``."""
    found = []
    for one in _opened(runs, data_dir):
        assert one.run.entry
        folder, key = RunFolder(one.run.entry.path.parent), f"{one.run.entry.record.evaluated}/{protocol}"
        if not folder.predictions.exists():
            continue
        predicted = np.load(folder.predictions)
        if key not in predicted:
            raise UserError(f"{folder.predictions} has no {protocol} of single images: show another protocol.")
        *_, last = [one.backbone, *stages(one.backbone).values()]
        test = one.test(Saliency(one.backbone, last))
        right = predicted[key][test.index.numpy()] == test.labels.numpy()
        found.append(Maps(one.run, test.x.numpy(), right, one.data.splits["test"].images))
    return found


def data_of_run(config: Config, digest: str, name: str) -> DataModule:
    """The images that the run called ``name`` was trained on; UserError where those of ``digest`` are not there."""
    data = build_data(config)
    if data.digest != digest:
        raise UserError(
            f"{config.dataset.name} in data_dir={config.data_dir} is not what {name} was trained on: set "
            "data_dir= to where these images are."
        )
    return data


def _opened(runs: Sequence[Run], data_dir: str | None) -> Iterator[_Opened]:
    data_of: dict[str, DataModule] = {}
    for run in runs:
        file = RunFolder(run.entry.path.parent).encoder if run.entry and not run.entry.committed else None
        if file is None or not file.exists():
            continue
        assert run.record
        config = run.config.changed({"data_dir": data_dir}) if data_dir else run.config
        key = run.record.data_digest
        if key not in data_of:
            data_of[key] = data_of_run(config, key, str(file.parent))
            data_of[key].setup()
        encoder, description = read_encoder(file)
        evaluator = build_evaluator(config, data_of[key], description["clean"])
        yield _Opened(run, data_of[key], evaluator, encoder.backbone, description["backbone"])
