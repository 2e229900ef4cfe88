"""The rules of the step against loops written from their equations, and their schedules."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_bench.errors import UserError
from ssl_bench.optim import LARS, Group, Recipe, orthogonalized

RECIPE = Recipe(
    name="sgd",
    lr=0.3,
    momentum=0.9,
    weight_decay=0.02,
    exclude_bias_and_norm=False,
    bias_and_norm_lr=1.0,
    trust=0.01,
    scale_lr_with_batch=False,
    accumulate=1,
    batch_size=64,
    warmup=0.2,
    schedule="step",
)
STEPS = 10


def recipe(**changes: Any) -> Recipe:
    return dataclasses.replace(RECIPE, **changes)


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5))
    return net.double()


def whole(net: nn.Module) -> list[Group]:
    return [Group(list(net.parameters()), lr_scale=1.0, constant_lr=False)]


def train(net: nn.Module, optimizer: Any, schedule: Any, steps: range) -> None:
    """Steps of least squares on images that depend on the step's number alone."""
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        net(torch.randn(8, 2, 3, 3, dtype=torch.float64)).sub(1).square().mean().backward()
        optimizer.step()
        schedule.step()


def falling(step: int) -> float:
    """Two steps of warm-up out of ten, then the cosine."""
    return (step + 1) / 2 if step < 2 else (1 + math.cos(math.pi * step / STEPS)) / 2


def written_out(net: nn.Module, rule: Any) -> list[Tensor]:
    """The weights after ``rule(w, g, state, step)``, one parameter at a time, at every step."""
    states: list[dict[str, Tensor]] = [{} for _ in net.parameters()]
    for step in range(STEPS):
        torch.manual_seed(step)
        net.zero_grad()
        net(torch.randn(8, 2, 3, 3, dtype=torch.float64)).sub(1).square().mean().backward()
        with torch.no_grad():
            for w, state in zip(net.parameters(), states, strict=True):
                rule(w, w.grad, state, step)
    return list(net.parameters())


def assert_same(mine: nn.Module, expected: list[Tensor]) -> None:
    for p, w in zip(mine.parameters(), expected, strict=True):
        torch.testing.assert_close(p, w, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("exclude", [True, False])
def test_lars_is_the_loop_of_its_equation(exclude: bool) -> None:
    def rule(w: Tensor, g: Tensor, state: dict[str, Tensor], step: int) -> None:
        d = g.clone()
        if not (exclude and w.ndim == 1):
            d += 0.02 * w
            if float(w.norm()) > 0 and float(d.norm()) > 0:
                d *= 0.01 * float(w.norm()) / float(d.norm())
        state["m"] = 0.9 * state["m"] + d if "m" in state else d
        w -= 0.3 * falling(step) * state["m"]

    net = network()  # BatchNorm's shift starts at 0: its ratio is 1 at first
    expected = written_out(copy.deepcopy(net), rule)
    optimizer, schedule = recipe(name="lars", exclude_bias_and_norm=exclude).build(whole(net), STEPS, 5)
    train(net, optimizer, schedule, range(STEPS))
    assert_same(net, expected)


def test_lars_is_timms_where_there_is_no_weight_decay() -> None:
    # With weight decay timm divides by ‖g‖ + λ‖w‖ where BYOL, Barlow Twins and VICReg divide by ‖g + λw‖.
    timm = pytest.importorskip("timm.optim")
    mine, theirs = network(), network()
    optimizer, schedule = recipe(name="lars", weight_decay=0.0).build(whole(mine), STEPS, 5)
    reference = timm.Lars(theirs.parameters(), lr=0.3, momentum=0.9, trust_coeff=0.01, eps=0, always_adapt=True)
    train(mine, optimizer, schedule, range(STEPS))
    train(theirs, reference, torch.optim.lr_scheduler.LambdaLR(reference, falling), range(STEPS))
    assert_same(mine, list(theirs.parameters()))


def test_lars_ignores_the_length_of_a_weights_gradient_but_not_of_a_bias() -> None:
    moved = []
    for factor in (1.0, 1000.0):
        weight, bias = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3))
        chosen = recipe(name="lars", weight_decay=0.0, exclude_bias_and_norm=True, warmup=0.0)
        optimizer, _ = chosen.build([Group([weight, bias], lr_scale=1.0, constant_lr=True)], STEPS, 5)
        weight.grad, bias.grad = torch.full((3, 2), factor), torch.full((3,), factor)
        optimizer.step()
        moved.append((1 - weight.detach(), 1 - bias.detach()))
    torch.testing.assert_close(moved[0][0], moved[1][0])
    torch.testing.assert_close(moved[0][0].norm(), torch.tensor(0.3 * 0.01 * math.sqrt(6)))  # lr · η ‖w‖
    torch.testing.assert_close(moved[0][1] * 1000, moved[1][1])


@pytest.mark.parametrize("name", ["lars", "muon"])
def test_gradients_and_what_has_none_stay_as_they_are(name: str) -> None:
    used, unused = nn.Parameter(torch.randn(2, 2)), nn.Parameter(torch.randn(2, 2))
    optimizer, _ = recipe(name=name).build([Group([used, unused], lr_scale=1.0, constant_lr=True)], STEPS, 5)
    used.grad = torch.randn(2, 2)
    gradient, before = used.grad.clone(), unused.detach().clone()
    optimizer.step()
    assert torch.equal(used.grad, gradient)
    assert torch.equal(unused, before)


def test_lars_evaluates_its_closure_with_gradient() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([{"params": [weight], "lr": 0.1, "weight_decay": 0.0, "trust": None}], momentum=0.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 4.0
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 0.9))


def by_singular_values(matrix: Tensor) -> Tensor:
    """Jordan's quintic, five times, on the singular values themselves."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ v


def test_muon_is_the_loop_of_its_equation() -> None:
    def rule(w: Tensor, g: Tensor, state: dict[str, Tensor], step: int) -> None:
        lr = 0.3 * falling(step)
        state["m"] = 0.1 * g + (0.9 * state["m"] if step else 0)
        matrix = (0.1 * g + 0.9 * state["m"]).reshape(1 if w.ndim == 1 else len(w), -1)
        w *= 1 - lr * 0.02
        w -= lr * 0.2 * math.sqrt(max(matrix.shape)) * by_singular_values(matrix).reshape(w.shape)

    net = network()
    expected = written_out(copy.deepcopy(net), rule)
    optimizer, schedule = recipe(name="muon").build(whole(net), STEPS, 5)
    train(net, optimizer, schedule, range(STEPS))
    assert_same(net, expected)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (8, 8), (1, 9)])
def test_muon_steps_have_singular_values_near_one_whatever_the_gradients_length(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    gradient = torch.randn(shape)
    for factor in (1e-6, 1.0, 1e6):
        values = torch.linalg.svdvals(orthogonalized(factor * gradient))
        assert 0.6 < values.min() <= values.max() < 1.2
    assert torch.equal(orthogonalized(torch.zeros(shape)), torch.zeros(shape))


def test_adamw_is_the_loop_of_its_equation() -> None:
    def rule(w: Tensor, g: Tensor, state: dict[str, Tensor], step: int) -> None:
        lr = 0.3 * falling(step)
        w *= 1 if w.ndim == 1 else 1 - lr * 0.02
        state["m"] = 0.1 * g + (0.9 * state["m"] if step else 0)
        state["v"] = 0.001 * g**2 + (0.999 * state["v"] if step else 0)
        w -= lr * (state["m"] / (1 - 0.9 ** (step + 1))) / ((state["v"] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)

    net = network()
    expected = written_out(copy.deepcopy(net), rule)
    optimizer, schedule = recipe(name="adamw", exclude_bias_and_norm=True).build(whole(net), STEPS, 5)
    train(net, optimizer, schedule, range(STEPS))
    assert_same(net, expected)


def test_sgd_is_the_loop_of_its_equation_and_stays_fused() -> None:
    def rule(w: Tensor, g: Tensor, state: dict[str, Tensor], step: int) -> None:
        d = g + 0.02 * w
        state["m"] = 0.9 * state["m"] + d if "m" in state else d
        w -= 0.3 * falling(step) * state["m"]

    net = network()
    expected = written_out(copy.deepcopy(net), rule)
    optimizer, schedule = RECIPE.build(whole(net), STEPS, 5)
    assert isinstance(optimizer, torch.optim.SGD)
    assert all(group["fused"] for group in optimizer.param_groups)
    train(net, optimizer, schedule, range(STEPS))
    assert_same(net, expected)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw", "muon"])
def test_state_saved_in_the_middle_continues_identically(name: str) -> None:
    net = network()
    optimizer, schedule = recipe(name=name, exclude_bias_and_norm=True).build(whole(net), STEPS, 5)
    train(net, optimizer, schedule, range(4))
    saved = io.BytesIO()
    torch.save([part.state_dict() for part in (net, optimizer, schedule)], saved)
    train(net, optimizer, schedule, range(4, STEPS))
    saved.seek(0)
    other = network()
    parts = (other, *recipe(name=name, exclude_bias_and_norm=True).build(whole(other), STEPS, 5))
    for part, state in zip(parts, torch.load(saved, weights_only=True), strict=True):
        part.load_state_dict(state)
    train(*parts, range(4, STEPS))
    assert all(map(torch.equal, net.parameters(), other.parameters()))


def rates(chosen: Recipe, groups: list[Group]) -> list[list[float]]:
    """The learning rate of every group of the optimiser at every step."""
    optimizer, schedule = chosen.build(groups, STEPS, 5)
    found = []
    for _ in range(STEPS):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return [list(column) for column in zip(*found, strict=True)]


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw", "muon"])
def test_a_group_has_its_own_scale_and_may_stay_constant(name: str) -> None:
    groups = [
        Group([nn.Parameter(torch.ones(2, 2))], lr_scale=1.0, constant_lr=False),
        Group([nn.Parameter(torch.ones(2, 2))], lr_scale=10.0, constant_lr=False),
        Group([nn.Parameter(torch.ones(2, 2))], lr_scale=0.5, constant_lr=True),
    ]
    plain, scaled, constant = rates(recipe(name=name), groups)
    expected = [0.3 * falling(step) for step in range(STEPS)]
    assert plain == pytest.approx(expected)
    assert scaled == pytest.approx([10 * lr for lr in expected])
    assert constant == [0.15] * STEPS


def test_a_constant_schedule_only_warms_up() -> None:
    group = Group([nn.Parameter(torch.ones(2, 2))], lr_scale=1.0, constant_lr=False)
    assert rates(recipe(schedule="constant"), [group]) == [pytest.approx([0.15, *[0.3] * 9])]
    assert rates(recipe(schedule="constant", warmup=0.0), [group]) == [[0.3] * STEPS]


@pytest.mark.parametrize("exclude", [True, False])
def test_one_dimensional_parameters_may_have_a_rate_of_their_own(exclude: bool) -> None:
    net = network()
    groups = [*whole(net), Group([nn.Parameter(torch.ones(3))], lr_scale=2.0, constant_lr=True)]
    chosen = recipe(name="lars", bias_and_norm_lr=0.1, exclude_bias_and_norm=exclude, warmup=0.0)
    optimizer, _ = chosen.build(groups, STEPS, 5)
    weights, vectors, others = optimizer.param_groups
    assert all(p.ndim > 1 for p in weights["params"])
    assert all(p.ndim == 1 for p in vectors["params"])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.3, 0.03, 0.06])
    assert [group["trust"] for group in (vectors, others)] == [None if exclude else 0.01] * 2
    assert [group["weight_decay"] for group in (weights, vectors)] == [0.02, 0.0 if exclude else 0.02]


def test_what_is_frozen_is_not_trained() -> None:
    net = network()
    net[0].requires_grad_(False)
    optimizer, _ = RECIPE.build(whole(net), STEPS, 5)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in net.parameters() if p.requires_grad
    }
    with pytest.raises(UserError, match="nothing to train"):
        RECIPE.build(whole(net.requires_grad_(False)), STEPS, 5)
