"""Barlow Twins: the cross-correlation of the global batch."""

from __future__ import annotations

import pytest
from small_runs import loss_of, make

from contrast import draws


def test_the_loss_is_the_scaled_one_of_both_views() -> None:
    method, data = make("method=barlow_twins", "method.off_diagonal=0.02", "method.loss_scale=0.5")
    z1, z2 = draws(2)
    batch = next(iter(data.train_dataloader()))
    a, b = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (z1, z2))
    expected = 0.0
    for i in range(32):
        for j in range(32):
            c = float(a[:, i] @ b[:, j]) / 16
            expected += (1 - c) ** 2 if i == j else 0.02 * c**2
    assert loss_of(method, [z1, z2], [z1, z2], batch).item() == pytest.approx(expected / 2, rel=1e-4)


def test_both_views_get_gradient() -> None:
    method, data = make("method=barlow_twins")
    z1, z2 = (z.requires_grad_() for z in draws(2))
    loss_of(method, [z1, z2], [z1, z2], next(iter(data.train_dataloader()))).backward()
    assert z1.grad is not None
    assert z1.grad.abs().sum() > 0
    assert z2.grad is not None
    assert z2.grad.abs().sum() > 0


def test_the_projector_has_three_layers_and_a_plain_end() -> None:
    method, _ = make("method=barlow_twins")
    kinds = [type(module).__name__ for module in method.student.projector]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
