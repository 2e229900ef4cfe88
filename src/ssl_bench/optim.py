"""The student's optimiser: which parameters, which rule, which schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ssl_bench.errors import UserError
from ssl_bench.schedules import WarmupCosine


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate; those that require no gradient are passed over."""

    parameters: Sequence[nn.Parameter]
    lr_scale: float  # factor on the recipe's learning rate
    constant_lr: bool  # no warm-up, no decay


@dataclass(frozen=True)
class Recipe:
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

    def factor(self, total_steps: int, steps_per_epoch: int) -> WarmupCosine:
        """Step → learning rate as a share of ``peak_lr``."""
        return WarmupCosine(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            warmup_steps=round(self.warmup * total_steps),
            per_epoch=self.schedule == "epoch",
        )

    def build(
        self, groups: Sequence[Group], total_steps: int, steps_per_epoch: int
    ) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """The optimiser over ``groups`` and its per-step schedule."""
        falling = self.factor(total_steps, steps_per_epoch)
        settings: list[dict[str, Any]] = []
        factors: list[Callable[[int], float]] = []
        for group in groups:
            for parameters, decay in self._by_decay([p for p in group.parameters if p.requires_grad]):
                if parameters:
                    lr = self.peak_lr * group.lr_scale
                    settings.append({"params": parameters, "lr": lr, "weight_decay": decay})
                    factors.append(_one if group.constant_lr else falling)
        if not settings:
            raise UserError("there is nothing to train: no parameter requires a gradient.")
        # Fused, the step takes half the time on the CPU. Not on CUDA: there it would unscale fp16 gradients itself,
        # after the hooks that add to them. On the CPU nothing is scaled, but Lightning takes every fused optimiser
        # for one that unscales, and then refuses to clip.
        fused = all(p.device.type == "cpu" for group in settings for p in group["params"])
        optimizer = torch.optim.SGD(settings, lr=self.peak_lr, momentum=self.momentum, fused=fused)
        optimizer._step_supports_amp_scaling = False
        return optimizer, LambdaLR(optimizer, factors)

    def _by_decay(self, parameters: list[nn.Parameter]) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters with the weight decay they get."""
        if not self.exclude_bias_and_norm:
            return [(parameters, self.weight_decay)]
        weights = [p for p in parameters if p.ndim > 1]
        return [(weights, self.weight_decay), ([p for p in parameters if p.ndim <= 1], 0.0)]


def _one(step: int) -> float:
    return 1.0
