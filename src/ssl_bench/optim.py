"""The student's optimiser: which parameters, which rule, which schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ssl_bench.errors import UserError
from ssl_bench.schedules import WarmupCosine


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, warm-up and cosine decay: the protocol every method shares."""

    lr: float  # base learning rate
    momentum: float
    weight_decay: float
    exclude_bias_and_norm: bool  # no weight decay on one-dimensional parameters
    scale_lr_with_batch: bool  # lr · batch_size / 256 (Goyal et al. 2017)
    batch_size: int  # of the global batch
    warmup: float  # share of all steps
    schedule: str  # "epoch": the cosine moves once an epoch; "step": at every step

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up."""
        return self.lr * self.batch_size / 256 if self.scale_lr_with_batch else self.lr

    def build(
        self, parameters: Iterable[nn.Parameter], total_steps: int, steps_per_epoch: int
    ) -> tuple[torch.optim.SGD, LambdaLR]:
        """The optimiser over ``parameters`` and its per-step schedule."""
        trained = [p for p in parameters if p.requires_grad]
        if not trained:
            raise UserError("there is nothing to train: no parameter requires a gradient.")
        groups: list[dict[str, Any]] = [{"params": trained}]
        if self.exclude_bias_and_norm:
            groups = [
                {"params": [p for p in trained if p.ndim > 1]},
                {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
            ]
        optimizer = torch.optim.SGD(
            groups,
            lr=self.peak_lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            # Halves the step on the CPU. Not on CUDA: there a fused optimiser unscales fp16 gradients itself,
            # after the hooks that add to them.
            fused=all(p.device.type == "cpu" for p in trained),
        )
        factor = WarmupCosine(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            warmup_steps=round(self.warmup * total_steps),
            per_epoch=self.schedule == "epoch",
        )
        return optimizer, LambdaLR(optimizer, factor)
