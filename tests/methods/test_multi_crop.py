"""Smaller views predict the full-size ones, and never the other way round."""

from __future__ import annotations

import pytest
import torch
from small_runs import Fit, loss_of, make

from ssl_bench.config.options import GROUPS, block_of
from ssl_bench.errors import UserError
from ssl_bench.methods.base import Loss, Step

NEEDS = {name: block_of(name, "needs") for name in GROUPS["method"]}
MULTI_CROP = [name for name, needs in NEEDS.items() if needs.get("smaller_views")]
WITH_TARGETS = [name for name in MULTI_CROP if name != "pic"]  # which compares a view with weights, with no other view
LOCAL = "augment.groups.local.count=3"


@pytest.mark.parametrize("name", MULTI_CROP)
def test_training_with_smaller_views_moves_the_weights(fit: Fit, name: str) -> None:
    method, steps = fit(f"method={name}", LOCAL)
    sizes = [view.shape[-1] for view in method.views(steps[0]["batch"])]
    assert sizes == [16] * NEEDS[name]["full_size_views"] + [8, 8, 8]
    assert all(torch.isfinite(torch.tensor(step["loss"])) for step in steps)
    assert not all(map(torch.equal, steps[0]["student"], steps[-1]["student"]))


@pytest.mark.parametrize("name", MULTI_CROP)
def test_only_full_size_views_are_targets(name: str) -> None:
    method, data = make(f"method={name}", LOCAL)
    batch = next(iter(data.train_dataloader()))
    seen: list[tuple[int, int]] = []
    original = method.loss

    def loss(step: Step) -> Loss:
        seen.append((len(step.predictions), len(step.targets)))
        return original(step)

    method.loss = loss  # type: ignore[method-assign]
    method.training_step(batch, 0)
    full_size = NEEDS[name]["full_size_views"]
    assert seen == [(full_size + 3, full_size)]


@pytest.mark.parametrize("name", WITH_TARGETS)
def test_a_smaller_view_gets_gradient_from_both_full_size_ones(name: str) -> None:
    method, data = make(f"method={name}", "augment.groups.local.count=1")
    batch = next(iter(data.train_dataloader()))
    generator = torch.Generator().manual_seed(0)
    z1, z2, small = (torch.randn(16, 32, generator=generator) for _ in range(3))
    gradients = []
    for t1, t2 in ((z1, z2), (torch.roll(z1, 1, 0), z2), (z1, torch.roll(z2, 1, 0))):
        small = small.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(method, [z1, z2, small], [t1, t2], batch), small)
        gradients.append(gradient)
    assert not torch.allclose(gradients[0], gradients[1])
    assert not torch.allclose(gradients[0], gradients[2])


def test_the_correlation_of_directpred_is_of_full_size_views_only() -> None:
    method, data = make("method=directpred", LOCAL)
    batch = next(iter(data.train_dataloader()))
    views = [torch.randn(16, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    loss_of(method, views, views[:2], batch)
    full_size = [f.double() for view in views[:2] for f in view]
    expected = sum(torch.outer(f, f) for f in full_size) / len(full_size)
    ((found,),) = method.collected
    torch.testing.assert_close(found, expected, check_dtype=False)


@pytest.mark.parametrize("name", [name for name, needs in NEEDS.items() if needs.get("smaller_views") is False])
def test_methods_that_compare_full_size_views_refuse_smaller_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"set augment\.groups\.local\.count=0"):
        make(f"method={name}", LOCAL)


def test_smaller_views_must_be_smaller() -> None:
    with pytest.raises(UserError, match="largest views first"):
        make("method=swav", LOCAL, "augment.groups.local.size=16", "augment.groups.global.size=12")


@pytest.mark.parametrize("group", ["global", "local"])
def test_a_view_larger_than_what_the_network_is_evaluated_at_is_refused(group: str) -> None:
    with pytest.raises(UserError, match=rf"augment\.groups\.{group}\.size=64 is larger than the 16 pixels"):
        make("method=simclr", f"augment.groups.{group}.size=64", f"augment.groups.{group}.count=2")
