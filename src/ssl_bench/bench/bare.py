"""The smallest loop that trains: forward, backward, optimiser, on views that are ready."""

from __future__ import annotations

import torch
from torch import Tensor

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
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.mixed):
            embeddings = method.embed(method.student, self.views)  # [n, D] per view
            predictions = embeddings if method.predictor is None else [method.predictor(z) for z in embeddings]
            targets = embeddings
            if method.teacher is not None:
                with torch.no_grad():
                    targets = method.embed(method.teacher, self.views)
        loss = method.loss([p.float() for p in predictions], [t.float() for t in targets], self.batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def default_loop(method: Method, batch: Batch, precision: str) -> BareLoop:
    """The bare loop as the program computes: channels_last, ``precision``, the method's own optimiser."""
    views = [view.to(memory_format=torch.channels_last) for view in method.views(batch)]
    optimizer, _ = method.recipe.build(method.parameter_groups(), total_steps=1, steps_per_epoch=1)
    return BareLoop(method, views, batch, precision=precision, optimizer=optimizer)
