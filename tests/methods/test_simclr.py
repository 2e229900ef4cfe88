"""SimCLR: its temperature, and gradient through both roles of an embedding."""

from __future__ import annotations

import pytest
import torch
from small_runs import loss_of, make
from torch import Tensor

from contrast import contrastive, draws
from ssl_bench.losses import margin_triplet, nt_logistic, nt_xent


def test_an_embedding_gets_gradient_as_anchor_and_as_candidate() -> None:
    method, data = make("method=simclr", "method.temperature=0.3")
    z = [z.requires_grad_() for z in draws(2)]
    loss = loss_of(method, z, z, next(iter(data.train_dataloader())))
    found = torch.autograd.grad(loss, z)
    expected = contrastive(z, z, 0.3)
    torch.testing.assert_close(loss, expected)
    for mine, theirs in zip(found, torch.autograd.grad(expected, z), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def expected(objective: str, z: list[Tensor]) -> Tensor:
    normalize = objective != "nt_xent"
    if objective == "nt_xent":
        return nt_xent(z, z, first=0, temperature=0.3, normalize=normalize)
    semi_hard = objective in ("logistic_semi_hard", "margin_semi_hard")
    if objective in ("logistic", "logistic_semi_hard"):
        return nt_logistic(z, z, first=0, temperature=0.3, normalize=normalize, semi_hard=semi_hard)
    return margin_triplet(z, z, first=0, margin=0.4, normalize=normalize, semi_hard=semi_hard)


@pytest.mark.parametrize("objective", ["nt_xent", "logistic", "logistic_semi_hard", "margin", "margin_semi_hard"])
def test_the_objective_chooses_the_loss(objective: str) -> None:
    normalize = str(objective != "nt_xent").lower()
    overrides = ("method.temperature=0.3", "method.margin=0.4", f"method.normalize={normalize}")
    method, data = make("method=simclr", f"method.objective={objective}", *overrides)
    z = draws(2)
    torch.testing.assert_close(loss_of(method, z, z, next(iter(data.train_dataloader()))), expected(objective, z))
