"""MoCo's loss and the life of its queue."""

from __future__ import annotations

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from small_runs import Fit, loss_of, make

from contrast import against_queue, draws
from ssl_bench.errors import UserError
from ssl_bench.methods.base import Loss, Step


def rows(method: Any) -> torch.Tensor:
    (queue,) = method.queues
    return queue.rows


def moco(*overrides: str) -> tuple[Any, Any]:
    method, data = make("method=moco", "method.queue=64", *overrides)
    return method, next(iter(data.train_dataloader()))


def test_the_loss_is_the_loop_over_queue_rows_in_both_directions() -> None:
    method, batch = moco("method.temperature=0.3")
    q1, q2, k1, k2 = draws(4)
    queue = rows(method).clone()
    expected = against_queue(q1, k2, queue, 0.3) + against_queue(q2, k1, queue, 0.3)
    assert loss_of(method, [q1, q2], [k1, k2], batch).item() == pytest.approx(expected / 2, rel=1e-5)
    both, _ = moco("method.temperature=0.3", "method.symmetrize=sum")
    assert loss_of(both, [q1, q2], [k1, k2], batch).item() == pytest.approx(expected, rel=1e-5)


def test_equal_embeddings_give_the_log_of_one_plus_the_queue() -> None:
    method, batch = moco()
    rows(method).fill_(1 / math.sqrt(32))
    ones = torch.ones(16, 32)
    assert loss_of(method, [ones, ones], [ones, ones], batch).item() == pytest.approx(math.log(1 + 64), rel=1e-6)


def test_keys_are_enqueued_after_the_step_and_never_read_by_their_own_batch() -> None:
    method, batch = moco()
    before = rows(method).clone()
    first = method.training_step(batch, 0)["loss"]
    assert torch.equal(rows(method), before)
    again = method.training_step(batch, 0)["loss"]  # the queue has not moved in between
    torch.testing.assert_close(first, again)
    del method.collected[1:]
    with torch.no_grad():
        k1, k2 = method.embed(method.teacher, method.views(batch))
    method.student_steps = 1
    method.follow_student()
    expected = torch.nn.functional.normalize(torch.cat([k1, k2]), dim=1)
    torch.testing.assert_close(rows(method)[:32], expected)
    assert torch.equal(rows(method)[32:], before[32:])


class Keys(pl.Callback):
    """A ring of 96 keys in plain lists: those of three batches, the oldest overwritten first."""

    def __init__(self) -> None:
        self.ring: list[torch.Tensor | None] = [None] * 96
        self.seen = 0

    def on_train_start(self, trainer: pl.Trainer, method: Any) -> None:
        loss = method.loss

        def noted(step: Step) -> Loss:
            for k in [*step.targets[0], *step.targets[1]]:
                self.ring[self.seen % 96] = k / k.norm()
                self.seen += 1
            return loss(step)

        method.loss = noted


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_queue_holds_the_last_keys_the_oldest_overwritten_first(fit: Fit, accumulate: int) -> None:
    keys = Keys()
    options = {"accumulate_grad_batches": accumulate, "callbacks": [keys]}
    method, steps = fit("method=moco", "method.queue=96", f"trainer.accumulate={accumulate}", **options)
    assert keys.seen == 2 * 16 * len(steps) == next(iter(method.queues)).pushed
    assert keys.seen % 96  # the newest keys end in mid-queue
    torch.testing.assert_close(list(rows(method)), keys.ring)
    assert method.collected == []


def test_no_gradient_reaches_the_queue() -> None:
    method, batch = moco()
    method.training_step(batch, 0)["loss"].backward()
    assert rows(method).grad is None
    assert not rows(method).requires_grad


def test_a_queue_that_batches_do_not_fill_evenly_is_refused() -> None:
    with pytest.raises(UserError, match=r"method.queue=48 is not a multiple of the 32 keys"):
        make("method=moco", "method.queue=48")
