"""The one Trainer: of runs, of the certificate and of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy

from ssl_bench import distributed
from ssl_bench.callbacks.checkpointer import WholeCheckpointIO
from ssl_bench.training.ranks import ExistingGroup, ReplicaStrategy, without_signal_handlers


def build_trainer(
    callbacks: Sequence[pl.Callback],
    *,
    device: torch.device,
    devices: int,
    nodes: int,
    precision: str,
    epochs: int,
    accumulate: int,
    clip: float | None,
    share_statistics: bool,
    folder: Path,
) -> pl.Trainer:
    """A Trainer that does what its arguments state and what the callbacks add, and writes nothing of its own.

    It trains alone on ``device`` or, in a process group, as one of its ranks. devices: of one machine. accumulate:
    batches per step. clip: the largest norm of a gradient. share_statistics: whether ranks have BatchNorm statistics
    of their own, of which those of rank 0 count.
    """
    several = distributed.world_size() > 1
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=devices,
        num_nodes=nodes,
        strategy=ReplicaStrategy(sync_buffers=share_statistics) if several else SingleDeviceStrategy(device),
        precision=precision,  # type: ignore[arg-type]
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
        logger=False,
        callbacks=list(callbacks),
        plugins=[WholeCheckpointIO(), ExistingGroup(nodes)],
        default_root_dir=folder,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if several:
        without_signal_handlers(trainer)
    return trainer
