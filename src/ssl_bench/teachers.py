"""The teacher: the student's frozen twin, and the rules by which it follows the student.

θ the student's parameters, ξ the teacher's. The exponential moving average of MoCo and BYOL,
ξ ← ηξ + (1 − η)θ, and the bilevel SGD step of CLBO, ξ ← ξ + κ(θ − ξ), are the same arithmetic
with κ = 1 − η; they differ in when the step is taken.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Twin = TypeVar("Twin", bound=nn.Module)


def twin(student: Twin) -> Twin:
    """A copy of ``student`` that no gradient reaches.

    It stays in training mode: its BatchNorm uses batch statistics and keeps running ones of its own.
    """
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def step_towards(moving: nn.Module, goal: nn.Module, rate: float) -> None:
    """ξ ← ξ + rate (θ − ξ) for all parameters ξ of ``moving``, θ of ``goal``: rate 0 freezes ξ, rate 1 copies θ."""
    torch._foreach_lerp_(list(moving.parameters()), list(goal.parameters()), rate)


@torch.no_grad()
def follow_buffers(teacher: nn.Module, student: nn.Module, rate: float) -> None:
    """The same step for BatchNorm's running statistics; integer counters are copied, never averaged."""
    for mine, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, rate)
        else:
            mine.copy_(theirs)


@torch.no_grad()
def step_back(student: nn.Module, teacher: nn.Module, rates: Mapping[Tensor, float]) -> None:
    """θ ← θ + rate (ξ − θ) for the parameters that have a gradient: a step on the proximal term alone.

    rates: by parameter of the student; at most 1, which ends at the teacher.
    """
    pairs = [(p, t) for p, t in zip(student.parameters(), teacher.parameters(), strict=True) if p.grad is not None]
    for rate in {rates[p] for p, _ in pairs}:
        alike = [(p, t) for p, t in pairs if rates[p] == rate]
        torch._foreach_lerp_([p for p, _ in alike], [t for _, t in alike], min(1.0, rate))


@torch.no_grad()
def add_proximal_gradient(student: nn.Module, teacher: nn.Module, strength: float) -> None:
    """Add the gradient of (strength/2)‖θ − ξ‖² to the student's gradients, in place (CLBO, eq. 1).

    Parameters without a gradient are not trained and stay untouched.
    """
    pairs = [(p, t) for p, t in zip(student.parameters(), teacher.parameters(), strict=True) if p.grad is not None]
    gradients: list[Tensor] = [p.grad for p, _ in pairs if p.grad is not None]
    torch._foreach_add_(gradients, [p for p, _ in pairs], alpha=strength)
    torch._foreach_sub_(gradients, [t for _, t in pairs], alpha=strength)
