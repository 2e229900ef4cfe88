"""How fast a run trains: seconds and images, without what evaluates or saves between epochs."""

import time
from typing import Any

import pytorch_lightning as pl

from ssl_bench.batch import Batch


class Timing(pl.Callback):
    """Counts over interruptions; nothing of it enters metrics.csv, for it does not repeat exactly."""

    def __init__(self) -> None:
        self.seconds = 0.0  # on the clock
        self.core_seconds = 0.0  # of this process, which others on the machine do not lengthen
        self.images = 0
        self._since = self._core_since = 0.0

    @property
    def images_per_second(self) -> float:
        """Images of the global batch per second of training, 0 before the first batch."""
        return self.images / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        # A run that resumes within an epoch does not start that epoch again.
        self._start()

    def on_train_epoch_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        self._start()

    def _start(self) -> None:
        self._since, self._core_since = time.perf_counter(), time.process_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            outputs["value"].item()  # an accelerator is behind: its last step belongs to the epoch, too
        before, core_before = self._since, self._core_since
        self._start()
        self.seconds += self._since - before
        self.core_seconds += self._core_since - core_before
        self.images += batch.place.size

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "core_seconds": self.core_seconds, "images": self.images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.images = state["seconds"], state["images"]
        self.core_seconds = state.get("core_seconds", 0.0)  # earlier checkpoints have none
