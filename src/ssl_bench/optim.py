"""The student's optimiser: which parameters, which rule, which schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ssl_bench.errors import UserError
from ssl_bench.schedules import WarmupConstant, WarmupCosine, peak_lr

BETA2 = 0.999  # of AdamW's second moment: fixed


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate; those that require no gradient are passed over."""

    parameters: Sequence[nn.Parameter]
    lr_scale: float  # factor on the recipe's learning rate
    constant_lr: bool  # no warm-up, no decay


@dataclass(frozen=True)
class Recipe:
    """Rule, warm-up and decay of the student's optimiser, which all methods share unless ``recipe=original``."""

    name: str  # "sgd", "lars", "adamw" or "muon"
    lr: float  # base learning rate
    momentum: float  # of AdamW the first beta
    weight_decay: float
    exclude_bias_and_norm: bool  # no weight decay and no trust ratio for one-dimensional parameters
    bias_and_norm_lr: float  # factor on their learning rate
    trust: float  # η of LARS
    scale_lr_with_batch: bool  # lr · images of a step / 256 (Goyal et al. 2017)
    batch_size: int  # of the global batch
    accumulate: int  # batches per optimiser step
    warmup: float  # share of all steps
    schedule: str  # "epoch": the cosine moves once an epoch; "step": at every step; "constant": there is none

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up."""
        return peak_lr(self.lr, self.batch_size * self.accumulate, scaled=self.scale_lr_with_batch)

    def factor(self, total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
        """Step → learning rate as a share of ``peak_lr``."""
        warmup_steps = round(self.warmup * total_steps)
        if self.schedule == "constant":
            return WarmupConstant(warmup_steps)
        return WarmupCosine(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            warmup_steps=warmup_steps,
            per_epoch=self.schedule == "epoch",
        )

    def build(
        self, groups: Sequence[Group], total_steps: int, steps_per_epoch: int
    ) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """The optimiser over ``groups`` and its per-step schedule."""
        moving = self.factor(total_steps, steps_per_epoch)
        settings: list[dict[str, Any]] = []
        factors: list[Callable[[int], float]] = []
        for group in groups:
            for part in self._parts(group):
                if part["params"]:
                    settings.append(part)
                    factors.append(_one if group.constant_lr else moving)
        if not settings:
            raise UserError("there is nothing to train: no parameter requires a gradient.")
        optimizer = self._optimizer(settings)
        return optimizer, LambdaLR(optimizer, factors)

    def _parts(self, group: Group) -> Iterator[dict[str, Any]]:
        """A group's parameters with their settings: weights first, then what is treated apart from them."""
        spared = self.exclude_bias_and_norm
        apart = spared or self.bias_and_norm_lr != 1
        trained = [p for p in group.parameters if p.requires_grad]
        lr = self.peak_lr * group.lr_scale
        yield {
            "params": [p for p in trained if p.ndim > 1 or not apart],
            "lr": lr,
            "weight_decay": self.weight_decay,
            **self._trusting(self.trust),
        }
        yield {
            "params": [p for p in trained if p.ndim <= 1 and apart],
            "lr": lr * self.bias_and_norm_lr,
            "weight_decay": 0.0 if spared else self.weight_decay,
            **self._trusting(None if spared else self.trust),
        }

    def _trusting(self, trust: float | None) -> dict[str, float | None]:
        return {"trust": trust} if self.name == "lars" else {}

    def _optimizer(self, settings: list[dict[str, Any]]) -> torch.optim.Optimizer:
        if self.name == "lars":
            return LARS(settings, momentum=self.momentum)
        if self.name == "muon":
            return Muon(settings, momentum=self.momentum)
        # Fused, SGD takes half the time on the CPU. None elsewhere, for False would also switch foreach off.
        devices = {p.device.type for part in settings for p in part["params"]}
        optimizer: torch.optim.Optimizer
        if self.name == "adamw":
            betas = (self.momentum, BETA2)
            optimizer = torch.optim.AdamW(settings, betas=betas, fused="cpu" not in devices or None)
        else:
            fused = len(devices) == 1 or None
            optimizer = torch.optim.SGD(settings, lr=self.peak_lr, momentum=self.momentum, fused=fused)
        # A fused step could undo fp16's scaling of gradients itself, but only after the hooks that add to them and the
        # clipping, which Lightning refuses then. So they are unscaled before, as for any other step.
        optimizer._step_supports_amp_scaling = False
        return optimizer


class Momentum(torch.optim.Optimizer):
    """What rules with one momentum per parameter share; ``momentum`` is μ."""

    before_move: Callable[[], None] | None = None  # called once gradients are there; not in a step that fp16 skips

    def __init__(self, groups: list[dict[str, Any]], *, momentum: float) -> None:
        super().__init__(groups, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; returns what ``closure`` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.before_move is not None:
            self.before_move()
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            for w in weights:
                if "momentum_buffer" not in self.state[w]:
                    self.state[w]["momentum_buffer"] = torch.zeros_like(w)
            if weights:
                self.move(weights, [self.state[w]["momentum_buffer"] for w in weights], group)
        return loss

    def move(self, weights: list[Tensor], momenta: list[Tensor], group: dict[str, Any]) -> None:
        """Update ``weights``, which all have a gradient, and their ``momenta``."""
        raise NotImplementedError


class LARS(Momentum):
    """Layer-wise adaptive rate scaling (You et al. 2017), as BYOL, Barlow Twins and VICReg were trained.

        d = g + λw,   r = η ‖w‖ / ‖d‖,   m ← μm + r d,   w ← w − lr m

    per parameter tensor w with gradient g. r = 1 where a norm is 0, and in groups whose ``trust`` (η) is None.

    Deviation: You et al. put the learning rate into m, so that they differ where it changes; and they divide by
    ‖g‖ + λ‖w‖.

    Args:
        groups: dicts of ``params``, ``lr``, ``weight_decay`` (λ) and ``trust``.
        momentum: μ.
    """

    def move(self, weights: list[Tensor], momenta: list[Tensor], group: dict[str, Any]) -> None:
        steps = list(torch._foreach_add([cast(Tensor, w.grad) for w in weights], weights, alpha=group["weight_decay"]))
        if group["trust"] is not None:
            torch._foreach_mul_(steps, list(_trust_ratios(weights, steps, group["trust"])))
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, steps)
        torch._foreach_add_(weights, momenta, alpha=-group["lr"])


def _trust_ratios(weights: list[Tensor], steps: list[Tensor], trust: float) -> Tensor:
    """η ‖w‖ / ‖d‖ for each of M tensors, ``[M]``; 1 where that says nothing."""
    w, d = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(steps))
    return torch.where((w > 0) & (d > 0), trust * w / d, torch.ones_like(w))


class Muon(Momentum):
    """Momentum with orthogonal steps (Jordan et al. 2024), as long as AdamW's are (Liu et al. 2025).

        m ← μm + (1 − μ)g,   d = O((1 − μ)g + μm),   w ← (1 − lr λ) w − lr · 0.2 √max(A, B) · d

    per parameter tensor w with gradient g, taken as a matrix of A rows, one for each output, and B columns. O brings
    all singular values near 1, so that d √max(A, B) has a root mean square near 1. A vector is a matrix of one row.

    Deviations: Jordan et al. leave vectors and the last layer to AdamW; here all parameters follow one rule.

    Args:
        groups: dicts of ``params``, ``lr`` and ``weight_decay`` (λ).
        momentum: μ.
    """

    def move(self, weights: list[Tensor], momenta: list[Tensor], group: dict[str, Any]) -> None:
        for w, m in zip(weights, momenta, strict=True):
            gradient = cast(Tensor, w.grad)
            m.lerp_(gradient, 1 - group["momentum"])
            matrix = gradient.lerp(m, group["momentum"]).reshape(len(w) if w.ndim > 1 else 1, -1)
            d = orthogonalized(matrix).reshape(w.shape)
            w.mul_(1 - group["lr"] * group["weight_decay"])
            w.sub_(d, alpha=0.2 * max(matrix.shape) ** 0.5 * group["lr"])


def orthogonalized(matrix: Tensor) -> Tensor:
    """``matrix`` ``[A, B]`` with singular values brought near 1: between 0.68 and 1.14 where they were not tiny.

    Five times s ← as + bs³ + cs⁵ with Jordan's a, b, c, from the Frobenius norm 1. The powers are of the Gram matrix
    alone, which is far smaller than the weights of a convolution.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonalized(matrix.T).T
    flat = matrix / matrix.norm().clamp_min(1e-30)
    a, b, c = 3.4445, -4.7750, 2.0315
    gram = flat @ flat.T
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)

    def factor() -> Any:
        return a * eye + b * gram + c * gram @ gram

    product = step = factor()
    for _ in range(4):
        gram = step @ gram @ step
        step = factor()
        product = step @ product
    found: Tensor = product @ flat
    return found


def _one(step: int) -> float:
    return 1.0
