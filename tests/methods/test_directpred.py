"""DirectPred: the predictor that its inputs' correlation asks for."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from small_runs import Fit, loss_of, make

from contrast import draws
from ssl_bench.errors import UserError
from ssl_bench.methods.base import Step
from ssl_bench.methods.directpred import direct_predictor


def directpred(*overrides: str) -> tuple[Any, Any]:
    method, data = make("method=directpred", *overrides)
    return method, next(iter(data.train_dataloader()))


def observe(method: Any, f: list[torch.Tensor], z: list[torch.Tensor] | None) -> None:
    """One optimiser step's embeddings of the full-size views, as training shows them."""
    method.collected = [method.correlations(f, z)]
    method.student_steps += 1
    method.after_optimizer_step()


def correlation(width: int = 6) -> torch.Tensor:
    z = torch.randn(40, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = z * torch.logspace(0, -1, width, dtype=torch.float64)
    return z.T @ z / 40


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_the_predictor_has_the_correlations_axes_and_the_papers_eigenvalues(place: str) -> None:
    f = correlation()
    w = direct_predictor(f, epsilon=0.1, epsilon_place=place)
    torch.testing.assert_close(w, w.T)
    torch.testing.assert_close(w @ f, f @ w)
    s, u = torch.linalg.eigh(f)
    p = (u.T @ w @ u).diagonal()
    share = s / s.max()
    expected = (share + 0.1).sqrt() if place == "inside" else share.sqrt() + 0.1
    torch.testing.assert_close(p, expected)
    assert (p.diff() >= 0).all()  # monotone in s, which eigh sorts


def test_the_predictor_ignores_the_correlations_scale_and_of_equal_eigenvalues_is_the_identity() -> None:
    f = correlation()
    torch.testing.assert_close(
        direct_predictor(7 * f, epsilon=0.01, epsilon_place="outside"),
        direct_predictor(f, epsilon=0.01, epsilon_place="outside"),
    )
    same = direct_predictor(3 * torch.eye(5, dtype=torch.float64), epsilon=0.01, epsilon_place="outside")
    torch.testing.assert_close(same, 1.01 * torch.eye(5, dtype=torch.float64))
    nothing = direct_predictor(torch.zeros(4, 4), epsilon=0.01, epsilon_place="outside")
    torch.testing.assert_close(nothing, 0.01 * torch.eye(4))


def test_a_negative_epsilon_inside_is_floored() -> None:
    w = direct_predictor(correlation(), epsilon=-0.5, epsilon_place="inside")
    smallest = torch.linalg.eigvalsh(w).min()
    torch.testing.assert_close(smallest, torch.tensor(1e-4**0.5, dtype=torch.float64))


def test_the_correlation_is_the_moving_average_of_both_views() -> None:
    method, _ = directpred("method.rho=0.3", "method.kind=optimal")
    f1, f2, g1, g2 = draws(4)
    batches = [torch.cat([f1, f2]), torch.cat([g1, g2])]
    first, second = (rows.T @ rows / 32 for rows in batches)
    observe(method, [f1, f2], [f1, f2])
    torch.testing.assert_close(method.correlation, first)
    observe(method, [g1, g2], [g1, g2])
    torch.testing.assert_close(method.correlation, 0.3 * first + 0.7 * second)
    torch.testing.assert_close(
        method.cross_correlation,
        0.3 * torch.cat([f2, f1]).T @ batches[0] / 32 + 0.7 * torch.cat([g2, g1]).T @ batches[1] / 32,
    )


def test_without_memory_it_is_the_current_batch_and_the_order_of_images_does_not_matter() -> None:
    f1, f2, g1, g2 = draws(4)
    method, _ = directpred("method.rho=0")
    observe(method, [f1, f2], None)
    observe(method, [g1, g2], None)
    order = torch.randperm(16)
    other, _ = directpred("method.rho=0")
    observe(other, [g1[order], g2[order]], None)
    torch.testing.assert_close(method.correlation, other.correlation)


def test_the_batches_of_a_step_move_both_correlations_by_their_mean() -> None:
    method, _ = directpred("method.kind=optimal")
    f1, f2, g1, g2 = draws(4)
    method.collected = [method.correlations(views, views) for views in ([f1, f2], [g1, g2])]
    method.student_steps += 1
    method.after_optimizer_step()
    inputs, others = torch.cat([f1, f2, g1, g2]), torch.cat([f2, f1, g2, g1])
    torch.testing.assert_close(method.correlation, inputs.T @ inputs / 64)
    torch.testing.assert_close(method.cross_correlation, others.T @ inputs / 64)


def test_accumulated_batches_move_the_correlation_once_and_by_their_mean(fit: Fit) -> None:
    seen: list[torch.Tensor] = []  # E[f fᵀ] of every batch

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: Any, method: Any, outputs: Any, *_: Any) -> None:
            rows = torch.cat(outputs["embeddings"])
            seen.append(rows.T @ rows / len(rows))

    method, _ = fit(
        "method=directpred",
        "method.rho=0.3",
        "trainer.accumulate=2",
        accumulate_grad_batches=2,
        callbacks=[Watch()],
        max_steps=2,
    )
    first, second = torch.stack(seen).unflatten(0, (2, 2)).mean(1)
    torch.testing.assert_close(method.correlation, 0.3 * first + 0.7 * second)


def test_a_step_that_a_gradient_scaler_skips_leaves_the_correlation_alone(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pl.LightningModule, "optimizer_step", lambda self, *args, **_: args[-1]())
    method, _ = fit("method=directpred", max_steps=1)
    assert method.student_steps == 0
    assert not method.correlation.any()
    assert not method.collected


def test_centring_makes_it_a_covariance() -> None:
    method, _ = directpred("method.center=true")
    f1, f2 = draws(2)
    observe(method, [f1 + 5, f2 + 5], None)
    torch.testing.assert_close(method.correlation, torch.cov(torch.cat([f1, f2]).T, correction=0), atol=1e-4, rtol=1e-3)


def test_with_the_identity_as_predictor_the_loss_is_byols() -> None:
    method, batch = directpred()
    byol, _ = make("method=byol")
    f1, f2, z1, z2 = draws(4)
    with torch.no_grad():
        method.predictor.weight.copy_(2.5 * torch.eye(32))
    mine = loss_of(method, [method.predictor(f) for f in (f1, f2)], [z1, z2], batch)
    torch.testing.assert_close(mine, loss_of(byol, [f1, f2], [z1, z2], batch))


def test_the_predictor_is_set_at_multiples_of_freq_only(fit: Fit) -> None:
    set_at = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: Any, method: Any, *_: Any) -> None:
            if torch.equal(method.predictor.weight, method.solved()):
                set_at.append(method.student_steps - 1)

    fit("method=directpred", "method.freq=3", callbacks=[Watch()])
    assert set_at == [0, 3, 6, 9]


@pytest.mark.parametrize("kind", ["linear", "two_layer"])
def test_baselines_train_their_predictor_at_a_rate_of_its_own(fit: Fit, kind: str) -> None:
    method, _ = fit("method=directpred", f"method.kind={kind}", "method.predictor_lr_scale=4", "method.momentum=0")
    rest, predictor = method.trainer.optimizers[0].param_groups
    assert predictor["initial_lr"] == pytest.approx(4 * rest["initial_lr"])
    assert {id(p) for p in predictor["params"]} == {id(p) for p in method.predictor.parameters()}
    start, _ = make("method=directpred", f"method.kind={kind}")
    assert not all(map(torch.equal, method.predictor.parameters(), start.predictor.parameters()))
    # Without a moving average the teacher is the student.
    assert all(map(torch.equal, method.teacher.parameters(), method.student.parameters()))


def test_the_optimal_predictor_solves_least_squares() -> None:
    method, _ = directpred("method.kind=optimal", "method.epsilon=0")
    torch.manual_seed(0)
    f = [torch.randn(400, 32), torch.randn(400, 32)]
    z = [torch.randn(400, 32), torch.randn(400, 32)]
    observe(method, f, z)
    inputs, outputs = torch.cat(f), torch.cat([z[1], z[0]])
    expected = torch.linalg.lstsq(inputs, outputs).solution.T
    torch.testing.assert_close(method.solved(), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("epsilon", "solved"), [(0.0, False), (0.01, True)])
def test_a_singular_correlation_without_epsilon_is_named(epsilon: float, solved: bool) -> None:
    method, _ = directpred("method.kind=optimal", f"method.epsilon={epsilon}")
    constant = [torch.zeros(16, 32).index_fill(1, torch.tensor([3]), 1.0)] * 2
    if solved:
        observe(method, constant, constant)
        assert method.predictor.weight[3, 3].item() == pytest.approx(1 / 1.01)
    else:
        with pytest.raises(UserError, match=r"singular at step 1, .* at method\.epsilon=0\.0: choose one above 0"):
            observe(method, constant, constant)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_optimal_predictor_is_that_of_what_the_loss_compares_with(stop_gradient: bool) -> None:
    method, batch = directpred(
        "method.kind=optimal", "method.epsilon=0.001", f"method.stop_gradient={str(stop_gradient).lower()}"
    )
    f1, f2, z1, z2 = draws(4)
    method.collected = [method.collect(Step([f1, f2], [f1, f2], [z1, z2], batch))]
    method.student_steps = 1
    method.after_optimizer_step()
    inputs, outputs = torch.cat([f1, f2]), torch.cat([z2, z1] if stop_gradient else [f2, f1])
    expected = (outputs.T @ inputs) @ (inputs.T @ inputs + 0.001 * len(inputs) * torch.eye(inputs.shape[1])).inverse()
    torch.testing.assert_close(method.solved(), expected, atol=1e-3, rtol=1e-3)


def test_a_correlation_that_is_not_finite_is_named(fit: Fit) -> None:
    method, _ = directpred()
    method.collected = [[torch.full((32, 32), torch.nan)]]
    method.student_steps = 1
    with pytest.raises(UserError, match="correlation of DirectPred's embeddings is not finite at step 1"):
        method.after_optimizer_step()


def test_the_floor_holds_outside_the_root_too_and_signs_of_eigenvectors_do_not_matter() -> None:
    f = torch.diag(torch.tensor([1.0, 0.25, 0.0]))
    torch.testing.assert_close(
        direct_predictor(f, epsilon=0.0, epsilon_place="outside"), torch.diag(torch.tensor([1.0, 0.5, 1e-4]))
    )
    flip = torch.diag(torch.tensor([1.0, -1.0, 1.0]))
    q = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    turned = direct_predictor(q @ f @ q.T, epsilon=0.1, epsilon_place="outside")
    torch.testing.assert_close(turned, q @ direct_predictor(f, epsilon=0.1, epsilon_place="outside") @ q.T)
    mirrored = q @ flip  # the same axes, one of them the other way round
    torch.testing.assert_close(
        direct_predictor(mirrored @ f @ mirrored.T, epsilon=0.1, epsilon_place="outside"), turned
    )


def test_the_sum_of_directions_is_twice_their_mean() -> None:
    f1, f2, z1, z2 = draws(4)
    mean, batch = directpred()
    both, _ = directpred("method.symmetrize=sum")
    torch.testing.assert_close(loss_of(both, [f1, f2], [z1, z2], batch), 2 * loss_of(mean, [f1, f2], [z1, z2], batch))


def test_without_stopping_the_gradient_the_student_is_the_target_and_gets_gradient_as_that() -> None:
    method, batch = directpred("method.kind=linear", "method.stop_gradient=false")
    f = [x.requires_grad_() for x in draws(2)]
    stale = [torch.full_like(x, torch.nan) for x in f]  # a teacher's, which must not count
    predictions = [method.predictor(x) for x in f]
    loss, _ = method.collect_and_loss(Step(f, predictions, stale, batch))
    directions = []
    for p, z in ((predictions[0], f[1]), (predictions[1], f[0])):
        cosines = [(a @ b) / (a.norm() * b.norm()) for a, b in zip(p, z, strict=True)]
        directions.append(sum(2 - 2 * c for c in cosines) / 16)
    expected = (directions[0] + directions[1]) / 2
    torch.testing.assert_close(loss, expected)
    for mine, theirs in zip(
        torch.autograd.grad(loss, f, retain_graph=True), torch.autograd.grad(expected, f), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("freq", "trained"), [(1, False), (2, True)])
def test_a_predictor_that_is_set_after_every_step_needs_no_gradient(freq: int, trained: bool) -> None:
    method, _ = directpred(f"method.freq={freq}")
    assert method.predictor.weight.requires_grad == trained


def test_least_squares_refuses_a_negative_epsilon() -> None:
    with pytest.raises(UserError, match=r"method\.epsilon=-0\.1: least squares"):
        make("method=directpred", "method.kind=optimal", "method.epsilon=-0.1")
