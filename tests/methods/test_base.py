"""What all methods share."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from small_runs import Fit, config_of, loss_of, make

from ssl_bench import teachers
from ssl_bench.batch import Batch
from ssl_bench.config.options import GROUPS, block_of
from ssl_bench.errors import UserError
from ssl_bench.methods.base import Loss, Step

METHODS = GROUPS["method"]
TEACHERS = ["clbo", "moco", "byol", "moby", "directpred"]


@pytest.mark.parametrize("name", METHODS)
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    torch.manual_seed(123)
    first, _ = make(f"method={name}")
    torch.manual_seed(456)
    second, _ = make(f"method={name}")
    other, _ = make(f"method={name}", "seed=1")
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert not all(map(torch.equal, first.parameters(), other.parameters()))


@pytest.mark.parametrize("name", METHODS)
def test_all_methods_start_from_the_same_backbone(name: str) -> None:
    mine, _ = make(f"method={name}")
    simclr, _ = make("method=simclr")
    assert all(map(torch.equal, mine.student.backbone.parameters(), simclr.student.backbone.parameters()))


@pytest.mark.parametrize("name", METHODS)
def test_learning_rate_zero_keeps_the_random_weights(fit: Fit, name: str) -> None:
    method, _ = fit(f"method={name}", "optimizer.lr=1e-30", "optimizer.weight_decay=0", max_steps=2)
    start, _ = make(f"method={name}")
    for now, before in zip(method.student.parameters(), start.student.parameters(), strict=True):
        torch.testing.assert_close(now, before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_every_trained_parameter_gets_a_gradient_and_no_teacher_parameter_does(name: str) -> None:
    method, data = make(f"method={name}")
    method.training_step(next(iter(data.train_dataloader())), 0)["loss"].backward()
    *_, last = method.student.projector.parameters()
    for key, p in method.named_parameters():
        if key.startswith("teacher."):
            assert p.grad is None, key
            assert not p.requires_grad, key
        elif p.requires_grad:
            assert p.grad is not None, key
            shift = p is last and p.ndim == 1  # of all embeddings, which no loss notices that subtracts their mean
            assert shift or p.grad.abs().max() > 1e-5, key


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other if isinstance(one, int | float | str | None) else True


def test_a_loss_that_is_returned_alone_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    method, data = make("method=simclr")
    monkeypatch.setattr(type(method), "loss", lambda self, step: step.embeddings[0].sum())
    with pytest.raises(UserError, match=r"^SimCLR.loss is to return the loss and a dict of figures, as in loss, \{\}"):
        method.training_step(next(iter(data.train_dataloader())), 0)


def test_plain_numbers_beside_a_loss_become_tensors_that_ranks_can_average(monkeypatch: pytest.MonkeyPatch) -> None:
    method, data = make("method=simclr")
    monkeypatch.setattr(type(method), "loss", lambda self, step: (step.embeddings[0].sum(), {"half": 0.5}))
    batch = next(iter(data.train_dataloader()))
    step = method.run_networks(method.views(batch, draw=0), batch)
    figure = method.collect_and_loss(step)[1]["half"]
    assert isinstance(figure, torch.Tensor)
    assert float(figure) == 0.5


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_computed_in_float32_outside_autocast(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, data = make(f"method={name}")
    seen: list[tuple[bool, set[torch.dtype]]] = []
    loss = method.loss

    def watched(step: Step) -> Loss:
        dtypes = {one.dtype for one in (*step.predictions, *step.targets)}
        seen.append((torch.is_autocast_enabled("cpu"), dtypes))
        return loss(step)

    monkeypatch.setattr(method, "loss", watched)
    with torch.autocast("cpu", torch.bfloat16):
        found = method.training_step(next(iter(data.train_dataloader())), 0)
    assert seen == [(False, {torch.float32})]
    assert found["value"].dtype == torch.float32


@pytest.mark.parametrize("name", METHODS)
def test_the_teacher_is_deployed_by_clbo_alone(name: str) -> None:
    method, _ = make(f"method={name}")
    assert next(iter(method.networks())) == method.evaluated == ("teacher" if name == "clbo" else "student")


@pytest.mark.parametrize("name", TEACHERS)
def test_independent_initialisation_gives_the_teacher_weights_of_its_own(name: str) -> None:
    copied, _ = make(f"method={name}", "method.teacher_init=copy")
    independent, _ = make(f"method={name}", "method.teacher_init=independent")
    assert all(map(torch.equal, copied.student.parameters(), copied.teacher.parameters()))
    assert all(map(torch.equal, copied.student.parameters(), independent.student.parameters()))
    pairs = zip(independent.student.parameters(), independent.teacher.parameters(), strict=True)
    assert not any(torch.equal(p, q) for p, q in pairs if p.ndim > 1)


@pytest.mark.parametrize("name", TEACHERS[1:])
def test_a_moving_average_has_batch_statistics_of_its_own(fit: Fit, name: str) -> None:
    method, _ = fit(f"method={name}", max_steps=3)
    student, teacher = (dict(network.named_buffers()) for network in (method.student, method.teacher))
    assert any(key.endswith("running_mean") for key in teacher)
    for key, value in teacher.items():
        if key.endswith("running_mean"):
            assert not torch.equal(value, student[key])
        elif key.endswith("num_batches_tracked"):
            assert value == 3 * 2  # two views a step


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_changes_nothing_and_is_the_same_again(name: str) -> None:
    method, data = make(f"method={name}")
    batch = next(iter(data.train_dataloader()))
    step = method.run_networks(method.views(batch), batch)
    first = method.collect_and_loss(step)
    before = copy.deepcopy(method)
    assert same(method.loss(step), first)
    for now, then in zip(method.modules(), before.modules(), strict=True):
        assert same(vars(now), vars(then))


def test_a_step_that_a_gradient_scaler_skips_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    method, data = make("method=clbo", "method.lookahead=1", "method.teacher_step=1.0")
    calls: list[int] = []
    moves: list[object] = []
    monkeypatch.setattr(teachers, "step_towards", lambda *of_teacher: moves.append(of_teacher))

    class Skip(pl.plugins.precision.Precision):
        def optimizer_step(self, optimizer: Any, model: Any, closure: Any, **kwargs: Any) -> Any:
            calls.append(1)
            closure()
            return optimizer.step() if len(calls) % 2 else None

    trainer = pl.Trainer(
        max_steps=-1, max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, plugins=[Skip()],
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(method, datamodule=data)
    assert len(calls) == 5
    assert method.student_steps == 3
    assert len(moves) == 3


@pytest.mark.parametrize("earlier", [{}, {"teacher_steps": 1}, {"batches": 2}])  # counters that checkpoints once had
def test_the_count_of_steps_goes_on_where_it_was_saved(earlier: dict[str, int]) -> None:
    method, _ = make("method=clbo", "method.lookahead=2")
    again, _ = make("method=clbo", "method.lookahead=2")
    method.student_steps = 3
    state = method.state_dict()
    state["_extra_state"] |= earlier
    again.load_state_dict(state)
    assert again.student_steps == 3


def test_concatenated_views_share_batch_statistics(fit: Fit) -> None:
    apart, data = make("method=simclr")
    together, _ = make("method=simclr", "method.concat_views=true")
    views = apart.views(next(iter(data.train_dataloader())))
    z = apart.embed(apart.student, views)
    joint = together.embed(together.student, views)
    expected = together.student(torch.cat(views)).chunk(2)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(joint, expected, strict=True))
    assert not torch.allclose(z[0], joint[0], atol=1e-3)


def test_views_drawn_in_half_precision_reach_the_network_so() -> None:
    method, data = make("method=simclr")
    views, seen = method.views.forward, []
    method.views.forward = lambda *args, **kwargs: [view.bfloat16() for view in views(*args, **kwargs)]  # type: ignore
    method.student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method.training_step(next(iter(data.train_dataloader())), 0)
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize("schedule", ["step", "epoch"])
def test_the_learning_rate_is_a_warm_up_and_a_cosine(fit: Fit, schedule: str) -> None:
    import math

    rates: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: Any, method: Any, batch: Any, batch_idx: int) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    fit(
        "method=simclr",
        f"optimizer.schedule={schedule}",
        "optimizer.warmup=0.2",
        "optimizer.lr=0.5",
        callbacks=[Watch()],
    )
    # Ten steps in two epochs of five; the first two warm up.
    at = range(2, 10) if schedule == "step" else [0, 0, 0, 5, 5, 5, 5, 5]
    expected = [0.25, 0.5, *(0.5 * (1 + math.cos(math.pi * step / 10)) / 2 for step in at)]
    assert rates == pytest.approx(expected)


def test_weight_decay_can_leave_out_one_dimensional_parameters() -> None:
    method, _ = make("method=simclr", "optimizer.exclude_bias_and_norm=true")
    optimizer, _ = method.recipe.build(method.parameter_groups(), 10, 5)
    decayed, spared = optimizer.param_groups
    assert all(p.ndim > 1 for p in decayed["params"])
    assert decayed["weight_decay"] == 5e-4
    assert all(p.ndim == 1 for p in spared["params"])
    assert spared["weight_decay"] == 0


def test_the_base_learning_rate_scales_with_the_batch_only_when_asked() -> None:
    assert make("optimizer.lr=0.06", "batch_size=64")[0].recipe.peak_lr == 0.06
    scaled, _ = make("optimizer.lr=0.06", "batch_size=64", "optimizer.scale_lr_with_batch=true")
    assert scaled.recipe.peak_lr == pytest.approx(0.06 / 4)


def test_supervised_loss_is_cross_entropy_over_labelled_images_of_every_view() -> None:
    method, data = make("method=supervised")
    batch = next(iter(data.train_dataloader()))
    torch.manual_seed(0)
    logits = [torch.randn(16, 10), torch.randn(16, 10)]
    expected = (F.cross_entropy(logits[0], batch.labels) + F.cross_entropy(logits[1], batch.labels)) / 2
    torch.testing.assert_close(loss_of(method, logits, logits, batch), expected)
    batch.labels[::2] = -1
    kept = batch.labels >= 0
    expected = sum(F.cross_entropy(z[kept], batch.labels[kept]) for z in logits) / 2
    torch.testing.assert_close(loss_of(method, logits, logits, batch), expected)
    batch.labels[:] = -1
    assert loss_of(method, logits, logits, batch).item() == 0


@pytest.mark.parametrize("name", [name for name in METHODS if block_of(name, "needs").get("full_size_views") == 2])
def test_a_method_of_two_views_refuses_another_number(name: str) -> None:
    with pytest.raises(UserError, match=r"needs 2 full-size view\(s\), but the augmentation makes 3"):
        make(f"method={name}", "augment.groups.global.count=3")


@pytest.mark.slow
def test_compiled_networks_train_as_before_under_the_same_names() -> None:
    compiled, data = make("method=clbo", "trainer.compile=true")
    plain, _ = make("method=clbo")
    compiled.compile_networks("aot_eager")
    batch = next(iter(data.train_dataloader()))
    for method in (compiled, plain):
        for _ in range(2):
            method.training_step(batch, 0)["loss"].backward()
    for mine, theirs in zip(compiled.student.parameters(), plain.student.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for mine, theirs in zip(compiled.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


CROPS = ("augment.groups.local.count=1", "augment.groups.local.size=8")


@pytest.mark.parametrize(
    ("overrides", "enough"),
    [
        (("method=simclr",), 2),
        (("method=simclr", "method.concat_views=true"), 1),
        (("method=simclr", "method.concat_views=true", *CROPS), 2),
        (("method=pic", "method.concat_views=true"), 2),
    ],
)
def test_too_few_images_for_batch_statistics_are_refused(overrides: tuple[str, ...], enough: int) -> None:
    method, data = make(*overrides)
    (batch,) = itertools.islice(data.train_dataloader(), 1)
    few = Batch(batch.images[:enough], batch.labels[:enough], batch.index[:enough], batch.place)
    method.require_batch(enough)
    method.embed(method.student, method.views(few))  # BatchNorm itself agrees
    if enough == 2:
        with pytest.raises(UserError, match=r"batch_size=16 leaves each device a single image.*sync_batchnorm=true"):
            method.require_batch(1)


def test_watching_callbacks_change_neither_weights_nor_statistics_nor_random_numbers(fit: Fit) -> None:
    from ssl_bench.callbacks.accuracy_monitor import AccuracyMonitor
    from ssl_bench.callbacks.collapse_monitor import CollapseMonitor
    from ssl_bench.callbacks.finite_loss import FiniteLoss
    from ssl_bench.callbacks.timing import Timing
    from ssl_bench.results.history import History
    from ssl_bench.training.build import build_evaluator, clean_arguments

    history, config, (_, data) = History(), config_of("method=clbo"), make("method=clbo")
    evaluator = build_evaluator(config, data, clean_arguments(config, data.dataset))
    curves = ["knn1", "linear"]
    accuracy = AccuracyMonitor(evaluator, history, monitor="knn1", monitor_every=1, curves=curves, curves_every=1)
    found = []
    for callbacks in ([Timing(), FiniteLoss(), CollapseMonitor(history, print), accuracy], []):
        torch.manual_seed(5)
        method, _ = fit("method=clbo", callbacks=callbacks)
        found.append((method.state_dict(), torch.get_rng_state()))
    assert history.latest("test/linear/teacher") is not None
    assert same(*found)


@pytest.mark.parametrize("name", METHODS)
def test_the_original_recipe_chooses_the_optimiser_and_trains_with_it(fit: Fit, name: str) -> None:
    from ssl_bench.config.compose import compose
    from ssl_bench.optim import LARS

    wanted = compose(["scale=smoke", f"method={name}", "recipe=original"]).optimizer
    method, _ = fit(f"method={name}", "recipe=original", max_steps=1)
    start, _ = make(f"method={name}", "recipe=original")
    rules = {"sgd": torch.optim.SGD, "lars": LARS, "adamw": torch.optim.AdamW}
    optimizer = method.trainer.optimizers[0]
    assert type(optimizer) is rules[wanted.name]
    assert optimizer.param_groups[0]["weight_decay"] == wanted.weight_decay
    assert method.recipe.lr == wanted.lr
    now, before = next(method.student.backbone.parameters()), next(start.student.backbone.parameters())
    assert not torch.equal(now, before)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_every_optimiser_steps_along_clipped_gradients(fit: Fit, name: str, precision: Any) -> None:
    norms: list[float] = []

    class Watch(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, method: Any) -> None:
            def note(*_: Any) -> None:
                norms.append(float(torch.cat([p.grad.flatten() for p in method.student.parameters()]).norm()))

            trainer.optimizers[0].register_step_post_hook(note)

    options = {"gradient_clip_val": 0.01, "precision": precision, "callbacks": [Watch()]}
    fit("method=simclr", f"optimizer.name={name}", max_steps=3, **options)
    assert len(norms) == 3
    assert max(norms) <= 0.01 * 1.001
