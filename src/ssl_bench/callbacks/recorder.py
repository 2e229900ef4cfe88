"""Collect each epoch's figures and pass them on: metrics.csv and loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_bench.batch import Batch
from ssl_bench.methods.base import Method
from ssl_bench.results.history import History, Row


class Recorder(pl.Callback):
    """Closes the history's row at the end of every epoch; stands behind all callbacks that add to it.

    The running mean of the loss is part of the checkpoint, so an epoch that was interrupted ends with the same mean.
    """

    def __init__(self, history: History, path: Path) -> None:
        self.history = history
        self.path = path
        self.loss_sum: Tensor = torch.zeros((), dtype=torch.float64)
        self.batches = 0

    def on_train_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        # An offline logger starts a new file after a resume; with all earlier rows in it the file is whole by itself.
        for row in self.history.rows:
            _log(trainer, row)

    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.loss_sum = self.loss_sum.to(outputs["loss"].device) + outputs["loss"].detach()
        self.batches += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        assert isinstance(method, Method)
        added = self.history.open
        self.history.open = {
            "epoch": trainer.current_epoch + 1,
            "step": method.student_steps,
            "loss": self.loss_sum.item() / max(1, self.batches),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            **added,
        }
        row = self.history.close()
        self.loss_sum, self.batches = torch.zeros_like(self.loss_sum), 0
        if trainer.is_global_zero:
            self.history.write(self.path)
        _log(trainer, row)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history.state_dict(), "loss_sum": self.loss_sum.item(), "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history.load_state_dict(state["history"])
        self.loss_sum = torch.tensor(state["loss_sum"], dtype=torch.float64)
        self.batches = state["batches"]


def _log(trainer: pl.Trainer, row: Row) -> None:
    figures = {name: value for name, value in row.items() if name != "step"}
    for logger in trainer.loggers:
        logger.log_metrics(figures, step=int(row["step"]))
