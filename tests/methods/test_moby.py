"""MoBY: which prediction meets which key and which queue."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_runs import Fit, loss_of, make

from contrast import against_queue, draws


def moby(*overrides: str) -> tuple[Any, Any]:
    method, data = make("method=moby", "method.queue=64", *overrides)
    return method, next(iter(data.train_dataloader()))


def test_the_loss_pairs_a_prediction_with_the_other_views_key_and_queue() -> None:
    method, batch = moby("method.temperature=0.3")
    p1, p2, k1, k2 = draws(4)
    queue1, queue2 = (queue.rows for queue in method.queues)
    expected = against_queue(p1, k2, queue2, 0.3) + against_queue(p2, k1, queue1, 0.3)
    assert loss_of(method, [p1, p2], [k1, k2], batch).item() == pytest.approx(expected / 2, rel=1e-5)


def test_the_first_queue_does_not_touch_the_first_prediction() -> None:
    method, batch = moby()
    p1, p2, k1, k2 = draws(4)
    p1.requires_grad_()
    (before,) = torch.autograd.grad(loss_of(method, [p1, p2], [k1, k2], batch), p1)
    next(iter(method.queues)).push(torch.randn(16, 32))
    (after,) = torch.autograd.grad(loss_of(method, [p1, p2], [k1, k2], batch), p1)
    assert torch.equal(before, after)
    list(method.queues)[1].push(torch.randn(16, 32))
    (moved,) = torch.autograd.grad(loss_of(method, [p1, p2], [k1, k2], batch), p1)
    assert not torch.equal(before, moved)


def test_with_one_queue_content_and_no_predictor_it_is_symmetric_moco() -> None:
    mine, batch = moby("method.temperature=0.2")
    moco, _ = make("method=moco", "method.queue=64", "method.temperature=0.2")
    p1, p2, k1, k2 = draws(4)
    for queue in mine.queues:
        queue.rows.copy_(next(iter(moco.queues)).rows)
    torch.testing.assert_close(loss_of(mine, [p1, p2], [k1, k2], batch), loss_of(moco, [p1, p2], [k1, k2], batch))


def test_equal_embeddings_give_the_log_of_one_plus_the_queue() -> None:
    method, batch = moby("method.symmetrize=sum")
    ones = torch.ones(16, 32)
    for queue in method.queues:
        queue.rows.fill_(1 / math.sqrt(32))
    assert loss_of(method, [ones, ones], [ones, ones], batch).item() == pytest.approx(2 * math.log(1 + 64), rel=1e-6)


def test_each_queue_takes_the_keys_of_its_view(fit: Fit) -> None:
    method, batch = moby()
    with torch.no_grad():
        keys = method.embed(method.teacher, method.views(batch))
    method.training_step(batch, 0)
    method.student_steps = 1
    method.follow_student()
    for queue, rows in zip(method.queues, keys, strict=True):
        torch.testing.assert_close(queue.rows[:16], torch.nn.functional.normalize(rows, dim=1))
    trained, steps = fit("method=moby")
    assert [queue.pushed for queue in trained.queues] == [16 * len(steps)] * 2


def test_the_teacher_has_no_predictor_and_no_gradient_reaches_it() -> None:
    method, batch = moby()
    method.training_step(batch, 0)["loss"].backward()
    assert not any("predictor" in name for name, _ in method.teacher.named_parameters())
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for p in method.predictor.parameters())
