"""SimSiam: where gradient flows, and where it does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_runs import Fit, loss_of, make

from contrast import draws


def simsiam(*overrides: str) -> tuple[Any, Any]:
    method, data = make("method=simsiam", *overrides)
    return method, next(iter(data.train_dataloader()))


def test_the_loss_is_half_of_each_direction_of_minus_cosine() -> None:
    method, batch = simsiam()
    p1, p2, z1, z2 = draws(4)

    def distance(p: torch.Tensor, z: torch.Tensor) -> float:
        return -sum(float(a @ b / a.norm() / b.norm()) for a, b in zip(p, z, strict=True)) / len(p)

    expected = distance(p1, z2) / 2 + distance(p2, z1) / 2
    assert loss_of(method, [p1, p2], [z1, z2], batch).item() == pytest.approx(expected, rel=1e-5)


def test_it_is_minus_one_where_predictions_equal_the_other_view_up_to_scale() -> None:
    method, batch = simsiam()
    z1, z2 = draws(2)
    assert loss_of(method, [3 * z2, 0.1 * z1], [z1, z2], batch).item() == pytest.approx(-1, abs=1e-6)


def test_no_gradient_flows_through_the_targets() -> None:
    method, batch = simsiam()
    p1, p2, z1, z2 = (z.requires_grad_() for z in draws(4))
    loss_of(method, [p1, p2], [z1, z2], batch).backward()
    assert z1.grad is None
    assert z2.grad is None
    assert p1.grad is not None
    assert p2.grad is not None


def test_the_projector_ends_in_a_norm_without_scale_and_shift() -> None:
    method, batch = simsiam()
    last = list(method.student.projector)[-1]
    assert isinstance(last, torch.nn.BatchNorm1d)
    assert not last.affine
    z = method.embed(method.student, method.views(batch))[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(32), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(0, unbiased=False), torch.ones(32), atol=1e-2, rtol=0)


def test_a_constant_learning_rate_is_the_predictors_alone(fit: Fit) -> None:
    method, _ = fit("method=simsiam", "method.predictor_lr=constant")
    rest, predictor = method.trainer.optimizers[0].param_groups
    assert {id(p) for p in predictor["params"]} == {id(p) for p in method.predictor.parameters()}
    assert predictor["lr"] == pytest.approx(method.recipe.peak_lr)
    assert rest["lr"] == pytest.approx(0, abs=1e-12)
    decayed, _ = fit("method=simsiam")
    assert [group["lr"] for group in decayed.trainer.optimizers[0].param_groups] == pytest.approx([0], abs=1e-12)
