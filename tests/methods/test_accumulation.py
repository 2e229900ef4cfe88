"""An optimiser step takes the mean gradient of the batches it accumulates, also where an epoch ends in mid-group."""

from __future__ import annotations

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from small_runs import Fit, make
from torch import Tensor

from ssl_bench import teachers
from ssl_bench.errors import UserError

BATCHES = 5
STILL = ("optimizer.lr=1e-30", "optimizer.weight_decay=0", "epochs=2")  # so that every gradient is at the same weights
INDEPENDENT = ("method.teacher_init=independent", "method.proximal=0.5", "method.teacher_step=1e-30")


class Gradients(pl.Callback):
    """Each optimiser step's gradient as the step used it, and its learning rate."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.rates: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, method: Any) -> None:
        def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            self.seen.append(torch.cat([p.grad.flatten() for p in method.student.parameters()]).clone())
            self.rates.append(optimizer.param_groups[0]["lr"])

        trainer.optimizers[0].register_step_post_hook(note)


def train(fit: Fit, overrides: tuple[str, ...], accumulate: int, **options: Any) -> tuple[Any, Gradients]:
    gradients = Gradients()
    options |= {"accumulate_grad_batches": accumulate, "callbacks": [gradients]}
    method, _ = fit(*overrides, *STILL, f"trainer.accumulate={accumulate}", **options)
    return method, gradients


@pytest.mark.parametrize(
    ("overrides", "clipped", "accumulate"),
    [
        (("method=simclr",), False, 3),
        (("method=simclr",), False, BATCHES),
        (("method=simclr", "optimizer.name=lars"), False, 4),
        (("method=simclr",), True, 3),
        (("method=clbo", "method.lookahead=2", *INDEPENDENT), False, 4),
    ],
    ids=["sgd", "one step an epoch", "lars", "clipped", "clbo"],
)
def test_a_step_takes_the_mean_gradient_of_its_batches(
    fit: Fit, overrides: tuple[str, ...], clipped: bool, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, alone = train(fit, overrides, 1)
    assert len(alone.seen) == 2 * BATCHES
    expected = []
    for epoch in range(2):
        batches = alone.seen[epoch * BATCHES : (epoch + 1) * BATCHES]
        expected += [
            torch.stack(batches[first : first + accumulate]).mean(0) for first in range(0, BATCHES, accumulate)
        ]
    clip = 0.9 * min(float(mean.norm()) for mean in expected) if clipped else None  # as a too small gradient is not
    if clip:
        expected = [mean * min(1, clip / float(mean.norm())) for mean in expected]
    moves: list[object] = []  # of CLBO's teacher, which then stands still
    monkeypatch.setattr(teachers, "step_towards", lambda *of_teacher: moves.append(of_teacher))
    method, together = train(fit, overrides, accumulate, gradient_clip_val=clip)
    assert len(together.seen) == len(expected) == 2 * math.ceil(BATCHES / accumulate) == method.student_steps
    for mine, theirs in zip(together.seen, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6 * float(theirs.norm()))
    if overrides[0] == "method=clbo":
        assert len(moves) == method.student_steps // 2


@pytest.mark.parametrize("accumulate", [2, BATCHES])
def test_the_schedule_ends_with_the_last_step(fit: Fit, accumulate: int) -> None:
    _, gradients = train(fit, ("method=simclr", "optimizer.schedule=step"), accumulate)
    steps = 2 * math.ceil(BATCHES / accumulate)
    expected = [1e-30 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    assert gradients.rates == pytest.approx(expected, rel=1e-9, abs=0)


@pytest.mark.parametrize("accumulate", [1, 4, BATCHES])
def test_a_learning_rate_per_256_images_counts_those_of_a_step(accumulate: int) -> None:
    overrides = ("method=simclr", "optimizer.lr=0.1", "optimizer.scale_lr_with_batch=true")
    method, _ = make(*overrides, f"trainer.accumulate={accumulate}")
    assert method.recipe.peak_lr == pytest.approx(0.1 * 16 * accumulate / 256)


def test_a_step_of_more_batches_than_an_epoch_has_is_refused() -> None:
    with pytest.raises(UserError, match=rf"accumulate={BATCHES + 1} is more .*make {BATCHES} of"):
        make("method=simclr", f"trainer.accumulate={BATCHES + 1}")
