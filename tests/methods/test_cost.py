"""What a method's step costs is measured on the step that training takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from benchmarks.bare import Moment, TrainingLoop
from benchmarks.knn import MEMORY
from benchmarks.measurement import HOST
from benchmarks.methods import SMALL, halfway
from small_runs import Fit, make

from benchmarks import methods
from ssl_bench.config.options import GROUPS
from ssl_bench.methods.base import Loss, Method, Step
from ssl_bench.methods.clbo import CLBO
from ssl_bench.methods.pic import PIC
from ssl_bench.methods.swav import SwAV, sinkhorn
from ssl_bench.nn.queue import Queue

METHODS = GROUPS["method"]
CLIP = 0.5
WORDS = {
    "clbo": ("method.proximal=0.1",),
    "pic": ("method.negatives=20",),
    "swav": ("method.queue=32", "method.queue_from=2"),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_training_loop_takes_lightnings_steps(fit: Fit, name: str) -> None:
    overrides = (f"method={name}", "subset=48", *WORDS.get(name, ()))
    trained, diary = fit(*overrides, double=True, gradient_clip_val=CLIP)
    method, _ = make(*overrides)
    recipe = method.double().views
    moment = Moment(max_epochs=2, current_epoch=0, estimated_stepping_batches=len(diary))
    loop = TrainingLoop(method, [], diary[0]["batch"], precision="32-true", clip=CLIP, moment=moment)
    for step in diary:
        loop.batch, loop.views.drawn = step["batch"], recipe(step["batch"])
        moment.current_epoch = step["batch"].place.epoch
        loop.step()
        assert method.student_steps == step["count"]
        _equal(list(method.student.parameters()), step["student"])
        _equal(list(method.teacher.parameters()) if method.teacher else [], step["teacher"])
    _equal(_state(method), _state(trained))


def _equal(mine: Any, theirs: Any) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def _state(method: Method) -> dict[str, Any]:
    """All there is to save: networks with statistics, queues, instance weights, correlations, counters."""
    return {
        key: value
        for key, value in method.state_dict().items()
        if isinstance(value, torch.Tensor) or "extra_state" in key
    }


def test_lookahead_on_one_batch_takes_as_many_steps(fit: Fit) -> None:
    overrides = ("method=clbo", "subset=48", "method.lookahead=3", "method.lookahead_batch=same_batch")
    trained, diary = fit(*overrides, double=True)
    method, _ = make(*overrides)
    recipe = method.double().views
    moment = Moment(max_epochs=2, current_epoch=0, estimated_stepping_batches=len(diary))
    loop = TrainingLoop(method, [], diary[0]["batch"], precision="32-true", clip=None, moment=moment)
    for step in diary:
        loop.batch, loop.views.drawn = step["batch"], recipe(step["batch"])
        moment.current_epoch = step["batch"].place.epoch
        loop.step()
    assert method.student_steps == trained.student_steps == 3 * len(diary)
    _equal(_state(method), _state(trained))


@pytest.mark.parametrize("name", METHODS)
def test_a_measured_step_moves_all_that_training_moves(name: str) -> None:
    loop, looks = halfway(name, SMALL, HOST)
    method = loop.method
    loop.batch = next(looks)
    before = {key: value.clone() for key, value in _state(method).items() if isinstance(value, torch.Tensor)}
    loop.step()
    loop.step()  # CLBO's teacher follows every second one
    rest = {key for key, old in before.items() if torch.equal(_state(method)[key], old)}
    assert rest == set()


def test_clbos_teacher_moves_once_in_a_pair_of_measurements() -> None:
    loop, _ = halfway("clbo", SMALL, HOST)
    assert isinstance(loop.method, CLBO)
    for _ in range(2):
        moved = 0
        for _ in range(methods.TURNS):
            before = [p.clone() for p in loop.method.teacher.parameters()]
            loop.step()
            moved += not all(map(torch.equal, loop.method.teacher.parameters(), before))
        assert moved == 1


def test_swavs_queue_takes_part_and_its_prototypes_are_free() -> None:
    loop, _ = halfway("swav", SMALL, HOST)
    method = loop.method
    assert isinstance(method, SwAV)
    rows = torch.nn.functional.normalize(torch.randn(8, method.width, generator=torch.Generator().manual_seed(0)))
    alone = sinkhorn(rows @ method.prototypes.detach().T, epsilon=method.epsilon, iterations=method.iterations)
    assert (method.codes(rows, 0) - alone).abs().max() > 1e-3
    assert method.epoch > method.freeze_epochs


def test_pics_classes_are_those_of_new_images_and_of_as_many_recent_ones() -> None:
    loop, looks = halfway("pic", SMALL, HOST)
    method = loop.method
    assert isinstance(method, PIC)
    for _ in range(3):
        loop.batch = next(looks)
        assert len(method.active(loop.batch.index)) == SMALL.negatives + SMALL.batch_size
        behind = method.student_steps - method.classes.taken[loop.batch.index]
        assert behind.min() >= SMALL.images // SMALL.batch_size  # an epoch
        loop.step()
        assert (method.classes.taken[loop.batch.index] == method.student_steps).all()


def test_full_size_is_what_the_table_claims() -> None:
    sizes = {name: dict(methods.FULL.of(name)) for name in METHODS}
    assert sizes["moco"] == sizes["moby"] == {"queue": 4096}
    assert sizes["swav"] == {"prototypes": 512, "queue": 3840}
    assert sizes["pic"] == {"negatives": 4096}
    loop, _ = halfway("pic", replace(methods.FULL, width=1), HOST)
    assert isinstance(loop.method, PIC)
    assert loop.method.classes.weight.shape == (50_000, 128)
    assert [tuple(view.shape) for view in loop.views.drawn] == [(128, 3, 32, 32)]
    loop, _ = halfway("moco", replace(methods.FULL, width=1), HOST)
    assert [tuple(view.shape) for view in loop.views.drawn] == 2 * [(128, 3, 32, 32)]
    assert [len(module.rows) for module in loop.method.modules() if isinstance(module, Queue)] == [4096]


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_alone_is_that_of_training_and_leaves_nothing_behind(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Method] = []
    seen: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    def watched(name: str, sizes: methods.Sizes, device: torch.device) -> Any:
        loop, looks = halfway(name, sizes, device)
        loss = loop.method.loss

        def noted(step: Step) -> Loss:
            seen.append((step.predictions, step.targets))
            return loss(step)

        monkeypatch.setattr(loop.method, "loss", noted)
        made.append(loop.method)
        return loop, looks

    monkeypatch.setattr(methods, "halfway", watched)
    step = methods.loss(name, SMALL, HOST)
    for _ in range(3):
        step()
    (method,) = made
    for student, target in seen:
        assert all(z.dtype == torch.float32 and z.shape == (8, method.width) for z in student)
        assert all(z.grad is not None and z.grad.abs().sum() > 0 for z in student)
        assert len(target) == method.views.full_size
        if method.teacher is None:
            assert all(t is z for t, z in zip(target, student, strict=True))
        else:
            assert not any(t.requires_grad for t in target)
    assert not method.collected


def test_every_method_has_its_rows_and_a_ratio_is_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "_megabytes", lambda name, sizes, device: 3.0 if name == "simclr" else 6.0)
    monkeypatch.setattr(methods, "MEMORY", MEMORY.parent)
    monkeypatch.setattr(methods, "rotate", lambda ways, repeats, turns, device: repeats * [(2.4, 2.0, 0.01)])
    monkeypatch.setattr(methods, "whole", lambda name, sizes, device: name)
    monkeypatch.setattr(methods, "loss", lambda name, sizes, device: name)
    rows = methods.measure(2, small=True, device=HOST)
    kinds = ("step", "loss", "added memory")
    assert [row.case.split(", ")[:2] for row in rows] == [[kind, name] for name in METHODS for kind in kinds]
    for step, alone, memory in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        assert step.ratio == pytest.approx(1.2)
        assert step.values == pytest.approx([2 * 8 / 2.4] * 2)  # images/s of two turns
        assert step.reached == (None if step.target is None else step.target.number >= 1.2)
        assert alone.ratio == pytest.approx(0.005)
        assert alone.values == pytest.approx([5, 5])  # ms of one turn
        assert alone.reached
        assert memory.ratio in (1, 2)
    judged = {row.ours for row in rows if row.case.startswith("step") and row.target is not None}
    assert judged == set(methods.TARGETS) <= set(METHODS)


@pytest.mark.slow
@pytest.mark.skipif(not MEMORY.exists(), reason="the system does not tell")
def test_memory_counts_what_a_method_keeps() -> None:
    sizes = replace(SMALL, batch_size=100)
    few, many = (methods._megabytes("pic", replace(sizes, images=images), HOST) for images in (400, 40_000))
    assert many - few >= 40_000 * 128 * 8 / 1e6  # weights and velocities in float32
