"""One short training of a method in small, and all that it computes: what ``certificate`` compares."""

from __future__ import annotations

import copy
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_bench import distributed
from ssl_bench.batch import Batch
from ssl_bench.callbacks.checkpointer import Checkpointer
from ssl_bench.conditions import CHECKED_BATCH
from ssl_bench.config.compose import compose
from ssl_bench.devices import repeatable, resolve_device
from ssl_bench.evaluation.precision import full_float32
from ssl_bench.methods.base import Method
from ssl_bench.nn.norm import synchronize
from ssl_bench.training.build import build
from ssl_bench.training.trainer import build_trainer

STEPS = 5
RESUMED_AFTER = 3  # between two teacher steps of CLBO, which makes one after every second step
SMALL = (
    "scale=smoke",
    f"batch_size={CHECKED_BATCH}",
    f"subset={CHECKED_BATCH * STEPS}",
    "epochs=1",
    "optimizer.warmup=0",
    "method.concat_views=false",
)

Trace = dict[str, Any]  # losses and gradients of each step, and the state after the last


def train(
    name: str,
    *,
    norms: str | None = None,
    precision: str = "32-true",
    keep: Path | None = None,
    resume: Path | None = None,
    device: str = "cpu",
    views_of_cpu: bool = False,
) -> Trace:
    """One epoch of ``name`` in this process or, in a group, on this rank's rows; what is returned lies on the CPU.

    norms: ``alone`` or ``synced``, in double precision; None keeps the method as users train it. keep: where the
    checkpoint after RESUMED_AFTER steps goes. resume: a checkpoint to resume from. device: ``cpu`` or ``cuda``.
    views_of_cpu: the views are drawn on the CPU, wherever the rest is done.
    """
    for talker in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(talker).setLevel(logging.ERROR)
    config = compose([f"method={name}", *SMALL], certified=True)
    method, data = build(config)
    if norms is not None:
        method.double()
    if norms == "alone":
        _forget_the_batch(method)
    elif norms == "synced":
        synchronize(method)
    if views_of_cpu:
        _draw_on_cpu(method)
    trace: Trace = {"losses": [], "gradients": []}
    callbacks: list[pl.Callback] = [_Diary(trace)]
    if keep is not None:
        path = keep.with_suffix(".last")
        callbacks += [Checkpointer(path, fingerprint=name, every_seconds=0.0), _Keep(path, keep)]
    with warnings.catch_warnings(), full_float32(torch.device(device)), repeatable(device == "cuda"):
        warnings.simplefilter("ignore")
        world, chosen = distributed.world_size(), config.trainer
        trainer = build_trainer(
            callbacks,
            device=resolve_device(device, "device"),
            # Ranks that share a card have one each, the same.
            devices=world if device == "cpu" or torch.cuda.device_count() >= world else 1,
            nodes=1,
            precision=precision,
            epochs=config.epochs * method.passes_per_epoch,
            accumulate=chosen.accumulate,
            clip=chosen.clip,
            share_statistics=False,
            folder=Path(config.runs_dir),
        )
        trainer.fit(method, datamodule=data, ckpt_path=resume)
    state = {key: value for key, value in method.state_dict().items() if isinstance(value, Tensor)}
    for group, kept in enumerate(trainer.optimizers[0].state.values()):
        state |= {f"optimizer.{group}.{key}": value for key, value in kept.items() if isinstance(value, Tensor)}
    trace["state"] = {key: value.detach().cpu().clone() for key, value in state.items()}
    return trace


class _Diary(pl.Callback):
    """Writes down the loss and every gradient of each step."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def on_before_optimizer_step(self, trainer: pl.Trainer, method: pl.LightningModule, optimizer: Any) -> None:
        # Averaged over ranks by now; what methods add of their own comes after this.
        found = {name: p.grad.cpu().clone() for name, p in method.named_parameters() if p.grad is not None}
        self.trace["gradients"].append(found)

    def on_train_batch_end(self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.trace["losses"].append(float(distributed.mean_over_ranks(outputs["loss"].detach())))


class _Keep(pl.Callback):
    """Keeps the checkpoint after RESUMED_AFTER steps."""

    def __init__(self, path: Path, kept: Path) -> None:
        self.path = path
        self.kept = kept

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == RESUMED_AFTER:
            shutil.copy(self.path, self.kept)


def _draw_on_cpu(method: Method) -> None:
    """Let the method see the views that the CPU draws: two devices round other numbers to other pixels."""
    views = copy.deepcopy(method.views)  # not a part of the method, so that it stays where it is

    def draw(batch: Batch, draw: int = 0) -> list[Tensor]:
        return [view.to(batch.images.device) for view in views(batch.to("cpu"), draw=draw)]

    method.views.forward = draw  # type: ignore[method-assign]


def _forget_the_batch(module: nn.Module) -> None:
    """Put a norm over each image's own channels in place of every BatchNorm."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            layer = nn.GroupNorm(1, child.num_features, affine=child.affine)
            layer.requires_grad_(any(p.requires_grad for p in child.parameters()))
            setattr(module, name, layer.double())
        else:
            _forget_the_batch(child)
