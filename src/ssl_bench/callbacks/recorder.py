"""Each epoch's figures, collected and passed on: to metrics.csv and to a logger."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_bench.batch import Batch
from ssl_bench.callbacks.logger import Logger
from ssl_bench.callbacks.timing import Timing
from ssl_bench.methods.base import Method
from ssl_bench.results.history import History, Row


class Recorder(pl.Callback):
    """Closes the history's row at the end of every epoch; comes after all callbacks that add to it.

    The running mean of the loss is part of the checkpoint, so an epoch that was interrupted ends with the same mean.
    The logger gets each row and the images/s so far, which do not repeat exactly and so stay out of the
    history.
    """

    def __init__(self, history: History, path: Path, timing: Timing, logger: Logger) -> None:
        self.history = history
        self.path = path
        self.timing = timing
        self.logger = logger
        self.speeds: list[float] = []  # images/s, one for each row
        self.loss_sum: Tensor = torch.zeros((), dtype=torch.float64)
        self.batches = 0
        self.lr = 0.0  # of the last step: the schedule has moved on when a batch ends

    def on_train_batch_start(
        self, trainer: pl.Trainer, method: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_fit_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        # A logger starts anew after a resume; with all earlier rows what it writes is whole by itself. Not at the
        # start of training: there is none in a run that was interrupted after its last epoch.
        if trainer.is_global_zero:
            for row, speed in zip(self.history.rows, self.speeds, strict=True):
                self._log(row, speed)

    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.loss_sum = self.loss_sum.to(outputs["value"].device) + outputs["value"]
        self.batches += 1
        if trainer.is_last_batch:
            self.history.add({f"method/{name}": float(value) for name, value in outputs["figures"].items()})

    def on_train_epoch_end(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        assert isinstance(method, Method)
        added = self.history.open
        self.history.open = {
            "epoch": trainer.current_epoch + 1,
            "step": method.student_steps,
            "loss": self.loss_sum.item() / max(1, self.batches),
            "lr": self.lr,
            **added,
        }
        row = self.history.close()
        self.loss_sum, self.batches = torch.zeros_like(self.loss_sum), 0
        self.speeds.append(self.timing.images_per_second)
        if trainer.is_global_zero:
            self.history.write(self.path)
            self._log(row, self.speeds[-1])

    def _log(self, row: Row, speed: float) -> None:
        figures = {name: value for name, value in row.items() if name != "step"}
        self.logger.log(int(row["step"]), {**figures, "images_per_second": speed})

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.history.state_dict(),
            "speeds": list(self.speeds),
            "loss_sum": self.loss_sum.item(),
            "batches": self.batches,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history.load_state_dict(state["history"])
        self.speeds = list(state["speeds"])
        self.loss_sum = torch.tensor(state["loss_sum"], dtype=torch.float64)
        self.batches = state["batches"]
