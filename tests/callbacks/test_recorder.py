"""What an epoch leaves in metrics.csv, interrupted or not."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import torch

from ssl_bench.callbacks.logger import Logger
from ssl_bench.callbacks.recorder import Recorder
from ssl_bench.callbacks.timing import Timing
from ssl_bench.methods.base import Method
from ssl_bench.results.history import History

BATCHES = 4
LOSSES = torch.rand(3 * BATCHES, generator=torch.Generator().manual_seed(0))


def train(recorder: Recorder, first: int, end: int) -> None:
    """The batches from ``first`` up to ``end``, with the hooks of every epoch that ends among them."""
    for number in range(first, end):
        epoch, batch_idx = divmod(number, BATCHES)
        last = batch_idx == BATCHES - 1
        trainer: Any = SimpleNamespace(
            is_last_batch=last,
            is_global_zero=True,
            current_epoch=epoch,
            optimizers=[SimpleNamespace(param_groups=[{"lr": 1 / (number + 3)}])],
        )
        method: Any = Mock(spec=Method, student_steps=number + 1)
        batch: Any = None
        recorder.on_train_batch_start(trainer, method, batch, batch_idx)
        figures = {"margin": LOSSES[number] / 3}
        recorder.on_train_batch_end(trainer, method, {"value": LOSSES[number], "figures": figures}, batch, batch_idx)
        if last:
            recorder.on_train_epoch_end(trainer, method)


def new(folder: Path) -> Recorder:
    return Recorder(History(), folder / "metrics.csv", Timing(), Logger())


def test_rows_hold_each_epochs_mean_loss_last_rate_and_figures_exactly(tmp_path: Path) -> None:
    train(new(tmp_path), 0, 3 * BATCHES)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for epoch, row in enumerate(rows, start=1):
        last = epoch * BATCHES
        assert {name: float(value) for name, value in row.items()} == {
            "epoch": epoch,
            "step": last,
            "loss": LOSSES[last - BATCHES : last].double().sum().item() / BATCHES,
            "lr": 1 / (last + 2),
            "method/margin": float(LOSSES[last - 1] / 3),
        }
    assert len(rows) == 3


def test_an_epoch_that_was_interrupted_ends_with_the_row_of_an_uninterrupted_one(tmp_path: Path) -> None:
    train(new(tmp_path / "whole"), 0, 3 * BATCHES)
    broken = new(tmp_path / "broken")
    train(broken, 0, BATCHES + 2)
    again = new(tmp_path / "broken")
    again.load_state_dict(json.loads(json.dumps(broken.state_dict())))
    train(again, BATCHES + 2, 3 * BATCHES)
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "broken/metrics.csv").read_bytes()
