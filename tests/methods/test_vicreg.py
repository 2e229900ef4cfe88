"""VICReg: its three terms with their weights, and what it asks of plain SGD."""

from __future__ import annotations

import pytest
import torch
from small_runs import loss_of, make

from contrast import draws
from ssl_bench.config.compose import compose


def test_the_loss_weighs_the_three_terms_as_configured() -> None:
    overrides = ("method.invariance=3", "method.variance=5", "method.covariance=7", "method.loss_scale=0.5")
    method, data = make("method=vicreg", *overrides)
    batch = next(iter(data.train_dataloader()))
    z1, z2 = (0.5 * z for z in draws(2))
    invariance = float((z1 - z2).square().sum()) / z1.numel()
    variance = covariance = 0.0
    for z in (z1, z2):
        c = torch.cov(z.T)
        variance += sum(max(0.0, 1 - float(c[j, j] + 1e-4) ** 0.5) for j in range(32)) / 32 / 2
        covariance += sum(float(c[i, j]) ** 2 for i in range(32) for j in range(32) if i != j) / 32
    expected = 0.5 * (3 * invariance + 5 * variance + 7 * covariance)
    assert loss_of(method, [z1, z2], [z1, z2], batch).item() == pytest.approx(expected, rel=1e-4)


def test_both_views_get_gradient() -> None:
    method, data = make("method=vicreg")
    batch = next(iter(data.train_dataloader()))
    z1, z2 = (z.requires_grad_() for z in draws(2))
    first, second = torch.autograd.grad(loss_of(method, [z1, z2], [z1, z2], batch), [z1, z2])
    # The loss does not know which view is which.
    swapped = torch.autograd.grad(loss_of(method, [z2, z1], [z2, z1], batch), [z2, z1])
    torch.testing.assert_close(swapped, (second, first))
    assert first.abs().sum() > 0
    assert second.abs().sum() > 0


def test_it_asks_for_clipping_unless_the_user_says_otherwise() -> None:
    assert compose(["method=vicreg", "scale=paper"]).trainer.clip == 1
    assert compose(["method=vicreg", "scale=paper"]).optimizer.warmup > 0
    assert compose(["method=vicreg", "trainer.clip=3"]).trainer.clip == 3
    assert compose(["method=simclr"]).trainer.clip is None
