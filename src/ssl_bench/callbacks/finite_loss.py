"""Stop when the loss is no longer a number."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl

from ssl_bench.batch import Batch
from ssl_bench.errors import UserError


class FiniteLoss(pl.Callback):
    """UserError with method, step and learning rate; stands before whatever would save the state."""

    def __init__(self) -> None:
        self.lr = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, method: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        # Reading a loss from CUDA waits for the device, so there only now and then.
        if method.device.type == "cuda" and batch_idx % 20 and not trainer.is_last_batch:
            return
        loss = outputs["value"].item()
        if not math.isfinite(loss):
            raise UserError(
                f"the loss of {type(method).__name__} is {loss} at epoch {trainer.current_epoch + 1}, step "
                f"{trainer.global_step}, learning rate {self.lr:.3g}; what was saved before, if anything, is intact. "
                "Try a lower optimizer.lr, trainer.clip=1 or trainer.precision=32-true."
            )
