"""Stop when the loss is no longer a number."""

import math
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from ssl_bench.batch import Batch
from ssl_bench.errors import UserError


class FiniteLoss(pl.Callback):
    """UserError with method, step and learning rate; comes before all callbacks that save the state.

    To read a loss from an accelerator is to wait for it. There the losses are summed up, since a sum is finite only if
    all its terms are, and the sum is read at the end of an epoch and before the state is saved.
    """

    def __init__(self) -> None:
        self.lr = 0.0
        self.unread: Tensor | None = None  # sum of the losses since it was last read

    def on_train_batch_start(
        self, trainer: pl.Trainer, method: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.unread = outputs["value"] if self.unread is None else self.unread + outputs["value"]
        if method.device.type == "cpu" or trainer.is_last_batch:
            self._check(trainer, method)

    def on_save_checkpoint(self, trainer: pl.Trainer, method: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer, method)

    def _check(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        loss = 0.0 if self.unread is None else self.unread.item()
        self.unread = None
        if not math.isfinite(loss):
            raise UserError(
                f"the loss of {type(method).__name__} is {loss} at epoch {trainer.current_epoch + 1}, step "
                f"{trainer.global_step}, learning rate {self.lr:.3g}; what was saved before, if anything, is intact. "
                "Try a lower optimizer.lr, trainer.clip=1 or trainer.precision=32-true."
            )
