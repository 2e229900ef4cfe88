"""SwAV: balanced codes, resting prototypes, and what the queue may do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_runs import Fit, loss_of, make

from contrast import draws
from ssl_bench.errors import UserError
from ssl_bench.methods.base import Step
from ssl_bench.methods.swav import sinkhorn


def swav(*overrides: str) -> tuple[Any, Any]:
    method, data = make("method=swav", *overrides)
    return method, next(iter(data.train_dataloader()))


def scores(rows: int = 48, columns: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(rows, columns, generator=generator, dtype=torch.float64) - 1


def by_loops(s: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """Sinkhorn–Knopp on plain exponentials, as the paper's appendix writes it."""
    q = (s / epsilon).exp().T.clone()
    q /= q.sum()
    prototypes, images = q.shape
    for _ in range(iterations):
        for k in range(prototypes):
            q[k] /= q[k].sum() * prototypes
        for b in range(images):
            q[:, b] /= q[:, b].sum() * images
    return (q * images).T


@pytest.mark.parametrize("epsilon", [0.02, 0.05, 0.5])  # on logarithms, and twice by factors
def test_codes_equal_the_iteration_on_plain_exponentials(epsilon: float) -> None:
    torch.testing.assert_close(sinkhorn(scores(), epsilon=epsilon, iterations=3), by_loops(scores(), epsilon, 3))


@pytest.mark.parametrize("epsilon", [0.01, 0.025, 0.05])
def test_codes_are_finite_for_the_most_unequal_cosines(epsilon: float) -> None:
    extreme = torch.full((6, 4), -1.0)
    extreme[0, 0] = 1.0
    codes = sinkhorn(extreme, epsilon=epsilon, iterations=3)
    torch.testing.assert_close(codes.sum(1), torch.ones(6))


def test_every_images_code_sums_to_one_and_prototypes_balance_with_iterations() -> None:
    imbalance = []
    for iterations in (1, 3, 100):
        codes = sinkhorn(scores(), epsilon=0.05, iterations=iterations)
        assert (codes >= 0).all()
        torch.testing.assert_close(codes.sum(1), torch.ones(48, dtype=torch.float64))
        imbalance.append(float((codes.sum(0) - 4.8).abs().max()))
    assert imbalance[0] > imbalance[1] > imbalance[2]
    assert imbalance[2] < 1e-6


def test_codes_ignore_a_constant_and_follow_permutations() -> None:
    codes = sinkhorn(scores(), epsilon=0.05, iterations=3)
    torch.testing.assert_close(sinkhorn(scores() + 3, epsilon=0.05, iterations=3), codes)
    generator = torch.Generator().manual_seed(1)
    images, prototypes = (torch.randperm(size, generator=generator) for size in (48, 10))
    torch.testing.assert_close(sinkhorn(scores()[images], epsilon=0.05, iterations=3), codes[images])
    torch.testing.assert_close(sinkhorn(scores()[:, prototypes], epsilon=0.05, iterations=3), codes[:, prototypes])


def test_equal_scores_give_equal_codes_and_a_loss_of_at_least_ln_p() -> None:
    row = scores(1, 32).float()
    torch.testing.assert_close(sinkhorn(row.expand(16, -1), epsilon=0.05, iterations=3), torch.full((16, 32), 1 / 32))
    method, batch = swav()
    same = torch.randn(1, 32).expand(16, -1)
    loss, figures = method.loss(Step([same, same], [same, same], [same, same], batch))
    assert loss.item() >= math.log(32) - 1e-5
    assert float(figures["loss_over_ln_p"]) >= 1 - 1e-6
    with torch.no_grad():
        method.prototypes.copy_(method.prototypes[:1].expand(32, -1))  # all scores of a row are equal
    assert loss_of(method, [same, same], [same, same], batch).item() == pytest.approx(math.log(32), rel=1e-5)


def test_softness_runs_from_one_hot_to_uniform() -> None:
    hard = sinkhorn(scores(), epsilon=0.001, iterations=500)
    assert (hard.max(1).values > 0.9).double().mean() > 0.8
    soft = sinkhorn(scores(), epsilon=1e4, iterations=3)
    torch.testing.assert_close(soft, torch.full_like(soft, 0.1), atol=1e-4, rtol=0)


def test_a_hard_code_is_the_soft_ones_likeliest_prototype_alone() -> None:
    method, batch = swav("method.codes=hard")
    z1, z2 = draws(2)
    unit = [z / z.norm(dim=1, keepdim=True) for z in (z1, z2)]
    terms = []
    for view, other in ((0, 1), (1, 0)):
        codes = by_loops((unit[view] @ method.prototypes.T).detach().double(), method.epsilon, 3)
        scores = unit[other] @ method.prototypes.T / 0.1
        for image in range(16):
            best = max(range(32), key=lambda k: float(codes[image, k]))
            terms.append(scores[image].logsumexp(0) - scores[image, best])
    torch.testing.assert_close(loss_of(method, [z1, z2], [z1, z2], batch), torch.stack(terms).mean())


def test_the_loss_predicts_each_full_size_code_from_every_other_view() -> None:
    method, batch = swav("augment.groups.local.count=2")
    views = draws(4)
    unit = [z / z.norm(dim=1, keepdim=True) for z in views]
    predicted = [(z @ method.prototypes.T / 0.1).log_softmax(1) for z in unit]
    terms = []
    for i in (0, 1):
        codes = by_loops((unit[i] @ method.prototypes.T).detach().double(), method.epsilon, 3).float()
        terms += [-(codes * predicted[v]).sum(1).mean() for v in range(4) if v != i]
    torch.testing.assert_close(loss_of(method, views, views[:2], batch), torch.stack(terms).mean())


def test_no_gradient_flows_through_codes() -> None:
    method, batch = swav()
    z1, z2 = draws(2)
    t1, t2 = (z.clone().requires_grad_() for z in (z1, z2))
    loss_of(method, [z1, z2], [t1, t2], batch).backward()
    assert t1.grad is None
    assert t2.grad is None


@pytest.mark.parametrize("rule", ["sgd", "lars", "adamw", "muon"])
def test_prototypes_rest_while_frozen_whatever_the_optimiser(fit: Fit, rule: str) -> None:
    start, _ = make("method=swav")
    frozen, _ = fit("method=swav", "method.freeze_epochs=2", f"optimizer.name={rule}")
    torch.testing.assert_close(frozen.prototypes, start.prototypes, atol=1e-6, rtol=0)


def test_prototypes_move_when_they_are_free_and_stay_unit(fit: Fit) -> None:
    start, _ = make("method=swav")
    moved, _ = fit("method=swav", "method.freeze_epochs=1")
    assert not torch.allclose(moved.prototypes, start.prototypes, atol=1e-4)
    torch.testing.assert_close(moved.prototypes.norm(dim=1), torch.ones(32))


def test_the_queue_helps_when_full_and_its_rows_have_no_loss() -> None:
    method, batch = swav("method.queue=32", "method.queue_from=1")
    z1, z2 = draws(2)
    method._trainer = None
    type(method).epoch = property(lambda self: 1)  # type: ignore[assignment]
    try:
        alone = loss_of(method, [z1, z2], [z1, z2], batch)
        for queue in method.queues:
            queue.push(torch.randn(16, 32))
            assert not queue.full
        torch.testing.assert_close(loss_of(method, [z1, z2], [z1, z2], batch), alone)  # half full: not used
        for queue in method.queues:
            queue.push(torch.randn(16, 32))
        helped = loss_of(method, [z1, z2], [z1, z2], batch)
        assert not torch.equal(helped, alone)
        unit = torch.nn.functional.normalize(z1, dim=1)
        together = torch.cat([unit, next(iter(method.queues)).rows]) @ method.prototypes.T
        torch.testing.assert_close(
            method.codes(unit, 0),
            by_loops(together.detach().double(), method.epsilon, 3)[:16].float(),
            atol=1e-5,
            rtol=1e-4,
        )
    finally:
        del type(method).epoch


def test_a_view_is_assigned_among_its_own_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    method, _ = swav("method.queue=16", "method.queue_from=1")
    monkeypatch.setattr(type(method), "epoch", 1)
    rows, *keys = (z / z.norm(dim=1, keepdim=True) for z in draws(3))
    method.queues.push([keys])
    for view in (0, 1):
        scores = (torch.cat([rows, keys[view]]) @ method.prototypes.T).detach().double()
        torch.testing.assert_close(
            method.codes(rows, view), by_loops(scores, method.epsilon, 3)[:16].float(), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize(("epoch", "used"), [(1, False), (2, True)])
def test_a_full_queue_waits_for_its_epoch(epoch: int, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    method, _ = swav("method.queue=16", "method.queue_from=2")
    monkeypatch.setattr(type(method), "epoch", epoch)
    rows, *keys = (z / z.norm(dim=1, keepdim=True) for z in draws(3))
    method.queues.push([keys])
    alone = sinkhorn(rows @ method.prototypes.T, epsilon=method.epsilon, iterations=3)
    assert torch.allclose(method.codes(rows, 0), alone) != used


def test_each_views_embeddings_enter_its_queue_after_the_step(fit: Fit) -> None:
    method, steps = fit("method=swav", "method.queue=32")
    assert [queue.pushed for queue in method.queues] == [16 * len(steps)] * 2
    method, batch = swav("method.queue=32")
    before = [queue.rows.clone() for queue in method.queues]
    with torch.no_grad():
        embeddings = method.embed(method.student, method.views(batch))
    method.training_step(batch, 0)
    assert all(torch.equal(queue.rows, rows) for queue, rows in zip(method.queues, before, strict=True))
    method.follow_student()
    for queue, rows in zip(method.queues, embeddings, strict=True):
        torch.testing.assert_close(queue.rows[:16], rows / rows.norm(dim=1, keepdim=True))


def test_fewer_than_two_prototypes_and_an_uneven_queue_are_refused() -> None:
    with pytest.raises(UserError, match=r"at least 2"):
        make("method=swav", "method.prototypes=1")
    with pytest.raises(UserError, match=r"method.queue=40 is not a multiple of the 16 keys"):
        make("method=swav", "method.queue=40")


def test_prototypes_get_no_gradient_through_the_codes() -> None:
    method, batch = swav()
    z1, z2 = draws(2)
    (found,) = torch.autograd.grad(loss_of(method, [z1, z2], [z1, z2], batch), method.prototypes)
    unit = [z / z.norm(dim=1, keepdim=True) for z in (z1, z2)]
    codes = [by_loops((z @ method.prototypes.T).detach().double(), method.epsilon, 3).float() for z in unit]
    terms = [-(codes[1 - v] * (unit[v] @ method.prototypes.T / 0.1).log_softmax(1)).sum(1).mean() for v in (0, 1)]
    (expected,) = torch.autograd.grad(sum(terms) / 2, method.prototypes)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
