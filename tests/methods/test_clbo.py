"""CLBO against Algorithm 1 of its paper, written out as a plain loop without Lightning."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from small_runs import Fit, loss_of, make
from torch import Tensor, nn

from contrast import contrastive, draws, info_nce_by_rows
from ssl_bench import losses
from ssl_bench.errors import UserError
from ssl_bench.optim import Muon


def algorithm_1(
    overrides: list[str], lookahead: int, kappa: float, lam: float, decay: bool, epochs: int
) -> dict[str, Any]:
    """Student and teacher after ``epochs`` passes; the proximal term as a term of the loss, or as a step of its own."""
    method, data = make(*overrides)
    theta, xi = copy.deepcopy(method.student).double(), copy.deepcopy(method.student).double()
    for p in xi.parameters():
        p.requires_grad_(False)
    recipe = method.recipe
    apart = recipe.name == "muon"
    settings = [{"params": list(theta.parameters()), "lr": recipe.lr, "weight_decay": recipe.weight_decay}]
    optimizer = (
        Muon(settings, momentum=recipe.momentum) if apart else torch.optim.SGD(settings, momentum=recipe.momentum)
    )
    loader = data.train_dataloader()
    total = epochs * len(loader)
    student_steps = 0
    losses = []
    for epoch in range(1, epochs + 1):
        for batch in loader:
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * (1 + math.cos(math.pi * student_steps / total)) / 2
            views = [view.double() for view in method.views(batch)]
            v = [theta(view) for view in views]
            with torch.no_grad():
                u = [xi(view) for view in views]
            loss = contrastive(v, u, 0.2)
            distance = sum((p - q).square().sum() for p, q in zip(theta.parameters(), xi.parameters(), strict=True))
            optimizer.zero_grad()
            (loss + (0 if apart else lam * epoch / 2 * distance)).backward()
            if apart:
                with torch.no_grad():
                    for p, q in zip(theta.parameters(), xi.parameters(), strict=True):
                        p.sub_(optimizer.param_groups[0]["lr"] * lam * epoch * (p - q))
            optimizer.step()
            student_steps += 1
            losses.append(loss.item())
            if student_steps % lookahead == 0:
                rate = kappa / epoch if decay else kappa
                with torch.no_grad():
                    for q, p in zip(xi.parameters(), theta.parameters(), strict=True):
                        q.copy_((1 - rate) * q + rate * p)
    return {"student": theta, "teacher": xi, "losses": losses}


@torch.no_grad()
def distance(a: Any, b: Any) -> float:
    """The largest relative difference between two lists of tensors."""
    pairs = list(zip(a, b, strict=True))
    return max(float((p - q).abs().max() / q.abs().max().clamp(min=1e-6)) for p, q in pairs)


@pytest.mark.parametrize(
    ("rule", "lookahead", "lam", "decay"),
    [("sgd", 1, 0.0, False), ("sgd", 2, 0.3, False), ("sgd", 3, 0.1, True), ("muon", 2, 3.0, False)],
)
def test_training_follows_algorithm_1_across_epoch_ends(
    fit: Fit, rule: str, lookahead: int, lam: float, decay: bool
) -> None:
    overrides = [
        "method=clbo",
        "method.temperature=0.2",
        f"method.lookahead={lookahead}",
        f"method.proximal={lam}",
        "method.teacher_step=0.2",
        f"method.teacher_schedule={'decay' if decay else 'constant'}",
        f"optimizer.name={rule}",
    ]
    method, steps = fit(*overrides, double=True)
    expected = algorithm_1(overrides, lookahead, 0.2, lam, decay, epochs=2)
    assert [step["loss"] for step in steps] == pytest.approx(expected["losses"], rel=1e-8)
    assert distance(method.student.parameters(), expected["student"].parameters()) < 1e-7
    assert distance(method.teacher.parameters(), expected["teacher"].parameters()) < 1e-7
    start = [p.double() for p in make(*overrides)[0].student.parameters()]
    assert distance(expected["teacher"].parameters(), start) > 0.02


def teacher_moved(steps: list[dict[str, Any]]) -> list[bool]:
    """Whether the teacher moved at each batch but the first."""
    return [not all(map(torch.equal, a["teacher"], b["teacher"])) for a, b in itertools.pairwise(steps)]


def test_the_teacher_stands_still_between_its_steps_and_the_count_crosses_epoch_ends(fit: Fit) -> None:
    _, steps = fit("method.lookahead=3")
    assert len(steps) == 10  # five batches an epoch, which three does not divide
    assert teacher_moved(steps) == [(number % 3 == 0) for number in range(2, 11)]


def test_no_restart_leaves_the_student_where_its_steps_brought_it(fit: Fit) -> None:
    _, steps = fit("method.lookahead=2", "method.teacher_step=0.5", max_steps=2)
    assert not all(map(torch.equal, steps[1]["student"], steps[1]["teacher"]))


def test_restart_sets_the_student_back_to_the_teacher(fit: Fit) -> None:
    _, steps = fit("method.lookahead=2", "method.restart=true", "method.teacher_step=0.01", max_steps=4)
    same = [all(map(torch.equal, step["student"], step["teacher"])) for step in steps]
    assert same == [number % 2 == 0 for number in range(1, 5)]
    # And not the teacher forward to the student: both are nearly where they began.
    start = list(make()[0].student.parameters())
    assert distance(steps[1]["student"], start) < distance(steps[0]["student"], start) / 10


def test_the_ema_rule_moves_the_teacher_after_every_student_step(fit: Fit) -> None:
    _, steps = fit("method.lookahead=2", "method.teacher_rule=ema", "method.teacher_step=0.25", max_steps=4)
    for before, after in itertools.pairwise(steps):
        for old, new, student in zip(before["teacher"], after["teacher"], after["student"], strict=True):
            torch.testing.assert_close(new, 0.75 * old + 0.25 * student)


def test_k1_with_the_sgd_rule_is_the_ema_rule(fit: Fit) -> None:
    step, few = "method.teacher_step=0.1", {"max_steps": 4}
    _, bilevel = fit("method.lookahead=1", step, **few)
    _, average = fit("method.lookahead=4", "method.teacher_rule=ema", step, "method.proximal=0.026", **few)
    _, same = fit("method.lookahead=1", step, "method.proximal=0.026", **few)
    assert all(map(torch.equal, same[-1]["teacher"], average[-1]["teacher"]))
    assert not all(map(torch.equal, bilevel[-1]["teacher"], average[-1]["teacher"]))


@pytest.mark.parametrize("reuse", ["same_images", "same_batch"])
def test_looking_at_a_batch_again_takes_k_student_steps_on_it(fit: Fit, reuse: str) -> None:
    method, steps = fit("method.lookahead=3", f"method.lookahead_batch={reuse}", max_steps=3)
    assert [step["count"] for step in steps] == [3, 6, 9]
    assert teacher_moved(steps) == [True, True]
    assert method.global_step == 3


def test_same_images_are_augmented_anew_and_the_same_batch_is_not(fit: Fit) -> None:
    seen: dict[str, list[list[Tensor]]] = {}
    for reuse in ("same_images", "same_batch"):
        method, data = make("method.lookahead=2", f"method.lookahead_batch={reuse}")
        looks: list[list[Tensor]] = []
        original = method.views.forward

        def spy(batch: Any, draw: int = 0, original: Any = original, looks: Any = looks) -> list[Tensor]:
            views: list[Tensor] = original(batch, draw)
            looks.append(views)
            return views

        method.views.forward = spy  # type: ignore[method-assign]
        pl.Trainer(
            max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        ).fit(method, datamodule=data)  # fmt: skip
        seen[reuse] = looks
    first, second = seen["same_batch"]
    assert all(map(torch.equal, first, second))
    first, second = seen["same_images"]
    assert not any(map(torch.equal, first, second))


def test_reusing_a_batch_refuses_gradient_accumulation_and_says_why(fit: Fit) -> None:
    with pytest.raises(UserError, match="pile up"):
        fit("method.lookahead_batch=same_batch", accumulate_grad_batches=2)


def test_a_paper_epoch_is_k_passes_over_the_data_and_the_schedules_count_paper_epochs(fit: Fit) -> None:
    strengths: list[float] = []
    rates: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: Any, method: Any, batch: Any, batch_idx: int) -> None:
            strengths.append(method.proximal * method.epoch)
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    overrides = ("subset=32", "method.lookahead=3", "method.epoch_unit=teacher", "method.proximal=0.5")
    method, steps = fit(*overrides, "optimizer.schedule=epoch", "optimizer.lr=0.5", callbacks=[Watch()])
    assert method.passes_per_epoch == 3
    assert len(steps) == 12
    assert strengths == [0.5] * 6 + [1.0] * 6
    assert rates == pytest.approx([0.5] * 6 + [0.25] * 6)
    assert sum(teacher_moved(steps)) == 4  # len(loader) teacher steps in each of two epochs


@pytest.mark.parametrize("rule", ["own", "copy"])
def test_teacher_buffers_follow_their_rule(fit: Fit, rule: str) -> None:
    method, _ = fit("method.lookahead=1", f"method.teacher_buffers={rule}", "method.teacher_step=0.1", max_steps=3)
    student, teacher = method.student.backbone.bn1, method.teacher.backbone.bn1
    assert torch.equal(student.running_mean, teacher.running_mean) == (rule == "copy")
    assert int(teacher.num_batches_tracked) == 6  # two views, three steps


def test_averaged_teacher_statistics_move_by_the_teacher_step_alone(fit: Fit) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: Any, method: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            norms = (method.student.backbone.bn1, method.teacher.backbone.bn1)
            seen.append(tuple(norm.running_mean.clone() for norm in norms))  # type: ignore[arg-type]

    overrides = ("method.lookahead=2", "method.teacher_buffers=ema", "method.teacher_step=0.25")
    fit(*overrides, callbacks=[Watch()], max_steps=5)
    for number, ((_, before), (student, after)) in enumerate(itertools.pairwise(seen), start=2):
        expected = before if number % 2 else 0.75 * before + 0.25 * student
        torch.testing.assert_close(after, expected)


def test_the_two_kinds_of_negatives_have_their_own_floor(fit: Fit) -> None:
    for negatives, candidates in (("both_views", 2 * 16 - 1), ("other_view", 16)):
        method, data = make(f"method.negatives={negatives}")
        batch = next(iter(data.train_dataloader()))
        same = [torch.ones(16, 8), torch.ones(16, 8)]
        assert loss_of(method, same, same, batch).item() == pytest.approx(math.log(candidates), abs=1e-5)


def test_the_other_views_negatives_give_info_nce_in_both_directions() -> None:
    method, data = make("method.negatives=other_view", "method.temperature=0.3")
    v1, v2, u1, u2 = draws(4)
    found = loss_of(method, [v1, v2], [u1, u2], next(iter(data.train_dataloader())))
    assert found.item() == pytest.approx((info_nce_by_rows(v1, u2, 0.3) + info_nce_by_rows(v2, u1, 0.3)) / 2, rel=1e-5)


def test_the_proximal_term_pulls_the_student_towards_the_teacher(fit: Fit) -> None:
    def gap(lam: float) -> float:
        _, steps = fit(f"method.proximal={lam}")
        pairs = zip(steps[-1]["student"], steps[-1]["teacher"], strict=True)
        return float(sum((p - q).square().sum() for p, q in pairs))

    assert gap(1.0) < 0.5 * gap(0.0)


def test_the_proximal_gradient_is_added_before_clipping(fit: Fit) -> None:
    norms = []

    class Watch(pl.Callback):
        def on_before_zero_grad(self, trainer: Any, method: nn.Module, optimizer: Any) -> None:
            gradients = [p.grad for p in method.parameters() if p.grad is not None]
            if gradients:
                norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    overrides = ("method.proximal=50", "method.teacher_step=0.0", "optimizer.lr=0.01")
    fit(*overrides, gradient_clip_val=0.1, callbacks=[Watch()], max_steps=4)
    assert norms
    assert max(norms) <= 0.1 * 1.001


class Scaled(pl.plugins.precision.MixedPrecision):
    """The gradient scaler of fp16 alone, which CPUs compute slowly."""

    def __init__(self, scale: float) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))

    def forward_context(self) -> Any:
        return contextlib.nullcontext()


@pytest.mark.parametrize("rule", ["sgd", "adamw", "muon"])
def test_a_gradient_scaler_leaves_the_proximal_term_as_it_is(fit: Fit, rule: str) -> None:
    overrides = ("method.proximal=5", "method.lookahead=9", f"optimizer.name={rule}")
    _, plain = fit(*overrides)
    _, scaled = fit(*overrides, plugins=[Scaled(1024.0)], precision=None)  # a power of two, which rounds nothing
    assert len(plain) == 10
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(one["student"], other["student"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rule", ["sgd", "muon"])
def test_a_step_that_a_gradient_scaler_skips_leaves_the_student_where_it_was(fit: Fit, rule: str) -> None:
    class Overflow(pl.Callback):
        def on_after_backward(self, trainer: Any, method: nn.Module) -> None:
            if trainer.global_step == 2:
                next(p for p in method.parameters() if p.grad is not None).grad.fill_(torch.inf)  # type: ignore[union-attr]

    overrides = ("method.proximal=5", "method.lookahead=9", f"optimizer.name={rule}")
    method, steps = fit(*overrides, callbacks=[Overflow()], plugins=[Scaled(16.0)], precision=None, max_epochs=1)
    moved = [not all(map(torch.equal, a["student"], b["student"])) for a, b in itertools.pairwise(steps)]
    assert (moved, method.student_steps) == ([True, False, True, True], 4)


@pytest.mark.parametrize("schedule", ["constant", "decay"])
def test_the_default_proximal_strength_is_the_stated_share_of_the_drift(schedule: str) -> None:
    from ssl_bench.config.compose import compose

    config = compose(["method=clbo", "scale=paper", "epochs=800", f"method.teacher_schedule={schedule}"])
    kappa, lr, lookahead = config.method.options["teacher_step"], 0.06, 2
    assert kappa == (1.0 if schedule == "decay" else 0.01)
    # A steady drift settles at K a g / (κ + K a λ_e) with a = lr_e / (1 − β): the slow-down is 1 + K a λ_e / κ.
    lam = config.method.options["proximal"]
    rates = [lr * (1 + math.cos(math.pi * e / 800)) / 2 for e in range(1, 801)]
    slowdown = max(
        lookahead * rate / (1 - 0.9) * lam * e / (kappa / e if schedule == "decay" else kappa)
        for e, rate in enumerate(rates, 1)
    )
    assert slowdown == pytest.approx(0.5, rel=0.01)


ROWS = {
    "no projector": ["method.projector.layers=0"],
    "one layer": ["method.projector.layers=1"],
    "two layers": [],
    "three layers": ["method.projector.layers=3"],
    "predictor": ["method.predictor.layers=2"],
    "MSE": ["method.objective=mse"],
    "MSE and predictor, bilevel BYOL": ["method.objective=mse", "method.predictor.layers=2"],
    "bilevel Barlow Twins": ["method.objective=barlow_twins", "method.projector.layers=3"],
    "bilevel VICReg": ["method.objective=vicreg", "method.projector.layers=3", "trainer.clip=1"],
    "without the proximal term": ["method.proximal=0"],
    "moving average": ["method.teacher_rule=ema"],
    "decaying teacher step": ["method.teacher_schedule=decay"],
    "restart": ["method.restart=true"],
    "paper's epochs": ["method.epoch_unit=teacher"],
    "one batch looked at twice": ["method.lookahead_batch=same_batch"],
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_ablation_is_configuration_and_trains(fit: Fit, row: str) -> None:
    _, steps = fit("method=clbo", *ROWS[row], max_steps=3)
    assert all(math.isfinite(step["loss"]) for step in steps)
    assert not all(map(torch.equal, steps[0]["student"], steps[-1]["student"]))
    assert not all(map(torch.equal, steps[0]["teacher"], steps[-1]["teacher"]))


def test_objectives_compare_the_student_with_the_teachers_other_view() -> None:
    torch.manual_seed(0)
    v1, v2, u1, u2 = (torch.randn(16, 32) for _ in range(4))
    expected = {
        "mse": (losses.normalized_mse(v1, u2) + losses.normalized_mse(v2, u1)) / 2,
        "barlow_twins": sum(losses.barlow_twins(a, b, off_diagonal=0.005) for a, b in ((v1, u2), (v2, u1))) / 2,
        "vicreg": sum(losses.vicreg(a, b, invariance=25, variance=25, covariance=1) for a, b in ((v1, u2), (v2, u1)))
        / 2,
    }
    for objective, value in expected.items():
        method, data = make(f"method.objective={objective}")
        batch = next(iter(data.train_dataloader()))
        torch.testing.assert_close(loss_of(method, [v1, v2], [u1, u2], batch), torch.as_tensor(value))


def test_a_predictor_has_no_twin_and_feels_no_proximal_term(fit: Fit) -> None:
    method, data = make("method.predictor.layers=2", "method.proximal=100", "optimizer.weight_decay=0")
    assert len(list(method.teacher.parameters())) == len(list(method.student.parameters()))
    for p in method.teacher.parameters():
        p.data.add_(1.0)
    method.training_step(next(iter(data.train_dataloader())), 0)["loss"].backward()
    before = [p.grad.clone() for p in method.predictor.parameters()]
    method.trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    pulled = [p.grad.clone() for p in method.student.parameters()]
    method.on_before_optimizer_step(torch.optim.SGD(method.parameters(), lr=0.1))
    assert all(map(torch.equal, before, (p.grad for p in method.predictor.parameters())))
    assert not any(map(torch.equal, pulled, (p.grad for p in method.student.parameters())))
