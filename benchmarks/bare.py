"""Loops without a Trainer on views that are ready: the smallest that trains, and a method's whole training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ssl_bench.augment.views import Views
from ssl_bench.batch import Batch
from ssl_bench.methods.base import Method


class BareLoop:
    """A method's arithmetic on one batch, over and over: no Trainer, loader, augmentation, callback or teacher step.

    Args:
        views: one ``[n, C, S, S]`` each, in the memory format to compute in.
        batch: whose place the loss asks for.
        precision: ``bf16-mixed`` or ``32-true``, as the Trainer calls them.
    """

    def __init__(
        self,
        method: Method,
        views: list[Tensor],
        batch: Batch,
        *,
        precision: str,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.method = method.train()
        self.views = views
        self.batch = batch
        self.mixed = precision == "bf16-mixed"
        self.optimizer = optimizer

    def step(self) -> None:
        """One update of the student."""
        method = self.method
        with torch.autocast(method.device.type, dtype=torch.bfloat16, enabled=self.mixed):
            step = method.run_networks(self.views, self.batch)
        loss, _ = method.collect_and_loss(step)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def default_loop(method: Method, batch: Batch, precision: str) -> BareLoop:
    """The bare loop as the program computes, where the method is: ``precision``, the method's own optimiser."""
    batch = batch.to(method.device)
    views = [view.to(memory_format=torch.channels_last) for view in method.views(batch)]
    optimizer, _ = method.recipe.build(method.parameter_groups(), total_steps=1, steps_per_epoch=1)
    return BareLoop(method, views, batch, precision=precision, optimizer=optimizer)


@dataclass
class Moment:
    """Where a run stands: all that a method asks its Trainer in a step."""

    max_epochs: int
    current_epoch: int  # from 0
    estimated_stepping_batches: int  # optimiser steps of the whole run


class ReadyViews(Views):
    """Views that have been drawn: ``drawn`` whatever the batch, one ``[n, C, S, S]`` for each view of ``recipe``."""

    def __init__(self, drawn: list[Tensor], recipe: Views) -> None:
        nn.Module.__init__(self)
        self.drawn = drawn
        self.groups, self.sizes, self.count = recipe.groups, recipe.sizes, recipe.count
        self.full_size = recipe.full_size

    def forward(self, batch: Batch, draw: int = 0) -> list[Tensor]:
        return self.drawn


class TrainingLoop:
    """A method's step as Lightning takes it: its hooks, clipping, schedule and what follows the student included.

    What is left out: loader, augmentation, callbacks, and Lightning itself.

    Args:
        views: one ``[n, C, S, S]`` each; they and ``batch`` may be replaced between steps.
        precision: ``bf16-mixed`` or ``32-true``, as the Trainer calls them.
        clip: largest norm of the gradient; None does not clip.
    """

    def __init__(
        self,
        method: Method,
        views: list[Tensor],
        batch: Batch,
        *,
        precision: str,
        clip: float | None,
        moment: Moment,
    ) -> None:
        self.method = method.train()
        self.views = method.views = ReadyViews(views, method.views)
        self.batch = batch
        self.mixed = precision == "bf16-mixed"
        self.clip = clip
        self.moment = moment
        method.trainer = cast(pl.Trainer, moment)
        parts = method.configure_optimizers()
        self.optimizer: torch.optim.Optimizer = parts["optimizer"]
        self.schedule: torch.optim.lr_scheduler.LRScheduler = parts["lr_scheduler"]["scheduler"]

    def step(self) -> None:
        """One call of the method's ``optimizer_step``."""
        self.method.optimizer_step(self.moment.current_epoch, 0, self.optimizer, self._gradient)
        self.schedule.step()

    def _gradient(self) -> Tensor:
        """What the optimiser calls before its step, in Lightning's order; returns the loss."""
        with torch.autocast(self.method.device.type, dtype=torch.bfloat16, enabled=self.mixed):
            loss: Tensor = self.method.training_step(self.batch, 0)["loss"]
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.method.on_before_optimizer_step(self.optimizer)
        if self.clip is not None:
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(trained, self.clip)
        return loss
