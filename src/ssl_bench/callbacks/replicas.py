"""What ranks report and evaluate is one: the loss of the global batch, and one set of BatchNorm statistics."""

from typing import Any

import pytorch_lightning as pl

from ssl_bench.batch import Batch
from ssl_bench.distributed import mean_over_ranks, share_buffers


class Replicas(pl.Callback):
    """Comes before all callbacks that read a loss or evaluate a network, under several devices only.

    share_statistics: whether each rank's BatchNorm has running statistics of its own, in which case rank 0's count.
    """

    def __init__(self, *, share_statistics: bool) -> None:
        self.share_statistics = share_statistics

    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        outputs["value"] = mean_over_ranks(outputs["value"])
        if trainer.is_last_batch:  # when they are recorded
            outputs["figures"] = {name: mean_over_ranks(value) for name, value in outputs["figures"].items()}

    def on_train_epoch_end(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        if self.share_statistics:
            share_buffers(method)
