"""BYOL's training against its equations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_runs import Fit, loss_of, make


def byol(*overrides: str) -> Any:
    method, data = make("method=byol", *overrides)
    return method, next(iter(data.train_dataloader()))


def test_the_loss_is_the_mean_of_both_directions_and_sum_is_twice_that() -> None:
    torch.manual_seed(0)
    p, z = [torch.randn(16, 8), torch.randn(16, 8)], [torch.randn(16, 8), torch.randn(16, 8)]

    def direction(a: torch.Tensor, b: torch.Tensor) -> float:
        return sum(float((x / x.norm() - y / y.norm()).square().sum()) for x, y in zip(a, b, strict=True)) / len(a)

    both = direction(p[0], z[1]) + direction(p[1], z[0])
    mean, batch = byol()
    assert loss_of(mean, p, z, batch).item() == pytest.approx(both / 2, rel=1e-5)
    assert loss_of(byol("method.symmetrize=sum")[0], p, z, batch).item() == pytest.approx(both, rel=1e-5)


def test_swapping_the_views_leaves_the_loss_unchanged() -> None:
    torch.manual_seed(0)
    p, z = [torch.randn(16, 8), torch.randn(16, 8)], [torch.randn(16, 8), torch.randn(16, 8)]
    method, batch = byol()
    torch.testing.assert_close(loss_of(method, p, z, batch), loss_of(method, p[::-1], z[::-1], batch))


def test_the_teacher_has_no_predictor_and_is_not_optimised(fit: Fit) -> None:
    method, _ = fit("method=byol", max_steps=1)
    names = [name for name, p in method.named_parameters() if p.requires_grad]
    assert not any(name.startswith("teacher") for name in names)
    assert any(name.startswith("predictor") for name in names)
    assert not any("predictor" in name for name, _ in method.teacher.named_parameters())
    optimised = {id(p) for group in method.optimizers().param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in method.teacher.parameters()}


@pytest.mark.parametrize("name", ["byol", "moco", "moby", "directpred"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_teacher_is_the_moving_average_under_its_schedule(fit: Fit, schedule: str, name: str) -> None:
    _, steps = fit(f"method={name}", "method.momentum=0.6", f"method.momentum_schedule={schedule}", max_steps=5)
    average = [p.detach().clone() for p in make(f"method={name}")[0].student.parameters()]
    for number, step in enumerate(steps):
        eta = 0.6
        if schedule == "cosine":
            # 1 − (1 − η₀)(cos(πk/K) + 1)/2 with k the steps taken before this one and this one.
            eta = 1 - (1 - 0.6) * (math.cos(math.pi * (number + 1) / len(steps)) + 1) / 2
        average = [eta * a + (1 - eta) * p for a, p in zip(average, step["student"], strict=True)]
        for mine, expected in zip(step["teacher"], average, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("momentum", "copies"), [("0.0", True), ("0.9999999", False)])
def test_momentum_zero_copies_the_student(fit: Fit, momentum: str, copies: bool) -> None:
    _, steps = fit("method=byol", f"method.momentum={momentum}", max_steps=2)
    same = all(map(torch.equal, steps[-1]["student"], steps[-1]["teacher"]))
    assert same == copies


def test_the_teacher_counts_optimiser_steps_not_batches(fit: Fit) -> None:
    _, steps = fit("method=byol", accumulate_grad_batches=2, max_epochs=1)
    # Five batches an epoch: steps after batches 2, 4 and, for the epoch ends there, 5.
    assert [step["count"] for step in steps] == [0, 1, 1, 2, 3]
    assert all(map(torch.equal, steps[1]["teacher"], steps[2]["teacher"]))
    assert not all(map(torch.equal, steps[2]["teacher"], steps[3]["teacher"]))
