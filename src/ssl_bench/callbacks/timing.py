"""How fast a run trains: wall seconds and images, without what evaluates or saves between epochs."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl

from ssl_bench.batch import Batch


class Timing(pl.Callback):
    """Counts over interruptions; nothing of it enters metrics.csv, for it does not repeat exactly."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.images = 0
        self._since = 0.0

    @property
    def images_per_second(self) -> float:
        """Images of the global batch per second of training, 0 before the first batch."""
        return self.images / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        # A run that resumes within an epoch does not start that epoch again.
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            outputs["value"].item()  # an accelerator is behind: its last step belongs to the epoch, too
        now = time.perf_counter()
        self.seconds += now - self._since
        self.images += batch.place.size
        self._since = now

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "images": self.images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.images = state["seconds"], state["images"]
