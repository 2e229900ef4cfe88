"""Rows that are brought up to date when needed are those of a dense optimiser."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssl_bench.nn.lazy_sgd import LazySGD, StepProducts
from ssl_bench.schedules import WarmupCosine


def schedule(steps: int, *, per_epoch: bool = False) -> list[float]:
    factor = WarmupCosine(total_steps=steps, steps_per_epoch=7, warmup_steps=steps // 10, per_epoch=per_epoch)
    return [0.5 * factor(step) for step in range(steps)]


def rows(count: int = 20, width: int = 3) -> Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Dense:
    """torch.optim.SGD over the whole matrix."""

    def __init__(self, rates: list[float], momentum: float, weight_decay: float) -> None:
        self.rates = rates
        self.weight = torch.nn.Parameter(rows())
        self.optimizer = torch.optim.SGD([self.weight], 1.0, momentum=momentum, weight_decay=weight_decay)

    def step(self, number: int, active: Tensor, gradient: Tensor) -> None:
        self.optimizer.param_groups[0]["lr"] = self.rates[number]
        self.weight.grad = torch.zeros_like(self.weight).index_add_(0, active, gradient)
        self.optimizer.step()


def touches(steps: int, *, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Each step's active rows, sometimes none of them for long, and their gradient."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(steps):
        active = torch.randperm(20, generator=generator)[: int(torch.randint(1, 6, (), generator=generator))]
        active = active[active < int(torch.randint(2, 21, (), generator=generator))]  # low rows come often, high seldom
        found.append((active, torch.randn(len(active), 3, dtype=torch.float64, generator=generator)))
    return found


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 37])
def test_a_product_over_any_interval_is_the_product_of_its_steps_the_later_to_the_left(steps: int) -> None:
    rates = schedule(steps)
    products = StepProducts(rates, momentum=0.9, weight_decay=0.1, device=torch.device("cpu"))
    for end in range(steps + 1):
        for first, found in enumerate(products.between(torch.arange(end + 1), end)):
            expected = torch.eye(2, dtype=torch.float64)
            for rate in rates[first:end]:
                expected = torch.tensor([[1 - rate * 0.1, -rate * 0.9], [0.1, 0.9]], dtype=torch.float64) @ expected
            torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("per_epoch", [False, True])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 5e-4), (0.9, 0.1), (0.99, 0.0), (0.0, 0.1), (0.0, 0.0)])
def test_lazy_rows_are_those_of_dense_sgd(momentum: float, weight_decay: float, per_epoch: bool) -> None:
    rates = schedule(160, per_epoch=per_epoch)
    dense = Dense(rates, momentum, weight_decay)
    lazy = LazySGD(rows(), momentum=momentum, weight_decay=weight_decay)
    lazy.follow(rates)
    for step, (active, gradient) in enumerate(touches(160)):
        lazy.catch_up(active, step)
        torch.testing.assert_close(lazy.leaf(active), dense.weight[active], rtol=1e-12, atol=1e-12)
        lazy.update(active, gradient, step)
        dense.step(step, active, gradient)
    assert len(lazy.taken.unique()) > 5  # some are far behind
    lazy.catch_up(torch.arange(20), 160)
    torch.testing.assert_close(lazy.weight, dense.weight.data, rtol=1e-12, atol=1e-12)
    if momentum:
        buffer = dense.optimizer.state[dense.weight]["momentum_buffer"]
        torch.testing.assert_close(lazy.velocity, buffer, rtol=1e-12, atol=1e-12)


def test_a_row_may_be_forgotten_for_so_long_that_the_determinant_of_its_product_is_zero() -> None:
    rates = schedule(9000)
    dense = Dense(rates, 0.9, 5e-4)
    lazy = LazySGD(rows(), momentum=0.9, weight_decay=5e-4)
    lazy.follow(rates)
    every = torch.arange(20)
    gradient = torch.ones(20, 3, dtype=torch.float64)
    for step in range(9000):
        dense.step(step, every, gradient if step == 0 else torch.zeros_like(gradient))
    lazy.update(every, gradient, 0)
    assert 0.9**9000 == 0
    lazy.catch_up(every, 9000)
    torch.testing.assert_close(lazy.leaf(every), dense.weight.data, rtol=1e-11, atol=1e-14)


def test_looking_at_a_row_on_the_way_does_not_change_where_it_goes() -> None:
    rates = schedule(100)
    often, once = (LazySGD(rows(), momentum=0.9, weight_decay=0.01) for _ in range(2))
    for lazy in (often, once):
        lazy.follow(rates)
        lazy.update(torch.arange(20), rows() - 1, 0)
    for step in range(1, 100, 7):
        often.catch_up(torch.arange(0, 20, 2), step)
    for lazy in (often, once):
        lazy.catch_up(torch.arange(20), 100)
    torch.testing.assert_close(often.weight, once.weight, rtol=1e-12, atol=1e-14)


def test_saved_and_restored_in_the_middle_is_uninterrupted_bit_for_bit() -> None:
    rates = schedule(60)

    def new() -> LazySGD:
        lazy = LazySGD(rows(), momentum=0.9, weight_decay=0.01)
        lazy.follow(rates)
        return lazy

    whole = new()
    for step, (active, gradient) in enumerate(touches(60)):
        whole.catch_up(active, step)
        whole.update(active, gradient, step)
    broken = new()
    for step, (active, gradient) in enumerate(touches(60)):
        if step == 31:
            saved = {name: values.clone() for name, values in broken.state_dict().items()}
            broken = new()
            broken.load_state_dict(saved)
        broken.catch_up(active, step)
        broken.update(active, gradient, step)
    for mine, other in zip(whole.buffers(), broken.buffers(), strict=True):
        assert torch.equal(mine, other)


def test_a_run_in_float32_stays_close_to_dense_float64() -> None:
    rates = schedule(400)
    dense, lazy = Dense(rates, 0.9, 5e-4), LazySGD(rows().float(), momentum=0.9, weight_decay=5e-4)
    lazy.follow(rates)
    for step, (active, gradient) in enumerate(touches(400)):
        lazy.catch_up(active, step)
        lazy.update(active, gradient.float(), step)
        dense.step(step, active, gradient)
    lazy.catch_up(torch.arange(20), 400)
    torch.testing.assert_close(lazy.weight.double(), dense.weight.data, rtol=1e-4, atol=1e-4)


def test_a_step_beyond_the_known_learning_rates_is_an_error() -> None:
    lazy = LazySGD(rows(), momentum=0.9, weight_decay=0.01)
    lazy.follow(schedule(5))
    with pytest.raises(ValueError, match="beyond the 5 steps"):
        lazy.catch_up(torch.arange(3), 6)
