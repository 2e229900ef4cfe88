"""When a loss is read, and that one that is no number is never passed over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_bench.callbacks.finite_loss import FiniteLoss
from ssl_bench.errors import UserError


class Value:
    """A loss that lies on a device, with how often it, or a sum that it is part of, was read."""

    reads = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def __add__(self, other: Value) -> Value:
        return Value(self.value + other.value)

    def item(self) -> float:
        Value.reads += 1
        return self.value


def train(device: str, losses: list[float], *, save_after: int | None = None) -> int:
    """An epoch; returns the number of reads."""
    callback, Value.reads = FiniteLoss(), 0
    method: Any = SimpleNamespace(device=torch.device(device))
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}])
    for step, loss in enumerate(losses):
        last = step == len(losses) - 1
        trainer: Any = SimpleNamespace(optimizers=[optimizer], current_epoch=0, global_step=step, is_last_batch=last)
        batch: Any = None
        callback.on_train_batch_start(trainer, method, batch, step)
        callback.on_train_batch_end(trainer, method, {"value": Value(loss)}, batch, step)
        if step == save_after:
            callback.on_save_checkpoint(trainer, method, {})
    return Value.reads


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("device", "save_after", "step"), [("cpu", None, 2), ("cuda", None, 5), ("cuda", 3, 3), ("cuda", 1, 5)]
)
def test_a_loss_is_missed_neither_by_a_save_nor_by_the_epochs_end(
    device: str, save_after: int | None, step: int, broken: float
) -> None:
    losses = [1.0, 1.0, broken, 1.0, 1.0, 1.0]
    with pytest.raises(
        UserError, match=rf"the loss of SimpleNamespace is -?(nan|inf) at epoch 1, step {step}, .* 0\.1;"
    ):
        train(device, losses, save_after=save_after)


def test_an_accelerator_is_waited_for_once_an_epoch_and_once_a_save() -> None:
    assert train("cpu", [1.0] * 9) == 9
    assert train("cuda", [1.0] * 9) == 1
    assert train("cuda", [1.0] * 9, save_after=4) == 2
