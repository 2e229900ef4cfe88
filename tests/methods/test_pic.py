"""PIC against its equations: the loss by loops, training by a dense optimiser over all instance weights."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from small_runs import Fit, config_of, loss_of, make
from torch import Tensor, nn

from forked import in_ranks
from ssl_bench.batch import Batch, Place
from ssl_bench.data.datamodule import DataModule
from ssl_bench.errors import UserError
from ssl_bench.methods.pic import PIC, instance_loss

PIC_WORDS = ("method=pic", "augment.groups.global.count=1", "order.name=window")
CROPS = ("augment.groups.local.count=2", "method.concat_views=true")


def pic(*overrides: str) -> tuple[PIC, DataModule]:
    method, data = make(*PIC_WORDS, *overrides)
    assert isinstance(method, PIC)
    return method, data


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_the_cross_entropy_of_an_explicit_cosine_table() -> None:
    weights, labels, temperature = randn(7, 5), torch.tensor([3, 0, 3, 6]), 0.3  # an image twice
    crops = [randn(4, 5, seed=seed) for seed in (1, 2, 3)]
    terms = []
    for z in crops:
        for row, label in zip(z, labels.tolist(), strict=True):
            logits = [float(w @ row / (w.norm() * row.norm())) / temperature for w in weights]
            assert max(map(abs, logits)) <= 1 / temperature
            terms.append(math.log(sum(map(math.exp, logits))) - logits[label])
    found = instance_loss(crops, weights, labels, full_size=1, temperature=temperature, cosine=True)
    assert found.item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


def test_the_plain_loss_is_the_cross_entropy_of_inner_products() -> None:
    weights, labels = randn(7, 5), torch.tensor([3, 0, 3, 6])
    crops = [randn(4, 5, seed=seed) for seed in (1, 2)]
    terms = []
    for z in crops:
        for row, label in zip(z, labels.tolist(), strict=True):
            logits = [float(w @ row) / 0.7 for w in weights]
            terms.append(math.log(sum(map(math.exp, logits))) - logits[label])
    found = instance_loss(crops, weights, labels, full_size=1, temperature=0.7, cosine=False)
    assert found.item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


def test_equal_cosines_give_the_logarithm_of_the_number_of_classes() -> None:
    found = instance_loss(
        [randn(4, 5)], randn(1, 5).expand(9, 5), torch.arange(4), full_size=1, temperature=0.1, cosine=True
    )
    assert found.item() == pytest.approx(math.log(9), rel=1e-12)


def test_a_part_of_the_classes_is_the_full_softmax_with_the_other_logits_at_minus_infinity() -> None:
    weights, active, own = randn(30, 5), torch.tensor([2, 3, 11, 29]), torch.tensor([11, 2])
    z = randn(2, 5, seed=1)
    part = instance_loss(
        [z], weights[active], torch.searchsorted(active, own), full_size=1, temperature=0.2, cosine=True
    )
    cosines = nn.functional.normalize(z) @ nn.functional.normalize(weights).T / 0.2
    masked = torch.full_like(cosines, -torch.inf)
    masked[:, active] = cosines[:, active]
    torch.testing.assert_close(part, nn.functional.cross_entropy(masked, own), rtol=1e-12, atol=0)


def test_small_crops_learn_from_the_weights_and_do_not_move_them() -> None:
    def gradients(small: Tensor) -> list[Tensor]:
        weights, crops = randn(7, 5).requires_grad_(), [randn(4, 5, seed=1).requires_grad_(), small.requires_grad_()]
        loss = instance_loss(crops, weights, torch.tensor([3, 0, 3, 6]), full_size=1, temperature=0.3, cosine=True)
        return list(torch.autograd.grad(loss, [weights, *crops]))

    one, other = gradients(randn(4, 5, seed=2)), gradients(randn(4, 5, seed=3))
    assert torch.equal(one[0], other[0])
    assert one[0].abs().sum() > 0
    assert one[2].abs().sum() > 0
    # Only the direction of a weight counts, so its gradient is at right angles to it.
    torch.testing.assert_close((one[0] * randn(7, 5)).sum(1), torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-14)


def test_the_classes_are_the_batchs_and_those_visited_last_or_all() -> None:
    method, data = pic("method.negatives=20")
    method.double()
    loader = data.train_dataloader()
    visited: list[int] = []
    for batch in (*loader, *loader):
        own = torch.searchsorted(data.parts.pretraining, batch.index)
        assert torch.equal(data.parts.pretraining[own], batch.index)
        newest = list(dict.fromkeys(reversed(visited)))[:20]
        assert method.active(own).tolist() == sorted({*own.tolist(), *newest})
        loss_of(method, [randn(16, 32).requires_grad_()], [], batch).backward()
        method.classes.follow([0.1] * 100)
        method.student_steps += 1
        method.follow_student()
        visited += own.tolist()
    every, _ = pic()
    assert every.active(own).tolist() == list(range(80))


def test_as_many_recent_classes_as_there_are_images_give_the_full_loss() -> None:
    full, data = pic()
    part, _ = pic("method.negatives=80")
    part.recent = torch.arange(80)
    batch, z = next(iter(data.train_dataloader())), randn(16, 32).float()
    torch.testing.assert_close(loss_of(part, [z], [z], batch), loss_of(full, [z], [z], batch), rtol=0, atol=0)


def test_weights_start_small_by_the_seed_alone_and_are_nobodys_parameters(fit: Fit) -> None:
    torch.manual_seed(1)
    first, _ = pic()
    torch.manual_seed(2)
    second, _ = pic()
    other, _ = pic("seed=1")
    assert torch.equal(first.classes.weight, second.classes.weight)
    assert not torch.equal(first.classes.weight, other.classes.weight)
    assert first.classes.weight.shape == (80, 32)
    assert first.classes.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not any(name.startswith("classes") for name, _ in first.named_parameters())
    assert pic("method.projector.layers=0")[0].classes.weight.shape == (80, 64)  # as wide as the feature


def test_other_numbers_of_views_and_scaled_gradients_are_refused() -> None:
    with pytest.raises(UserError, match="1 full-size view"):
        pic("augment.groups.global.count=2")
    method, _ = pic()
    trainer: Any = SimpleNamespace(precision="16-mixed")
    method._trainer = trainer
    with pytest.raises(UserError, match="bf16-mixed or 32-true"):
        method.on_fit_start()


def dense_training(overrides: tuple[str, ...], accumulate: int, negatives: int | None) -> dict[str, Any]:
    """Two epochs with the instance weights as a parameter of torch.optim.SGD, and classes left out by −∞.

    Without weight correction, those that no batch of the step has left in are put back where they were.
    """
    rest, plain = "method.weight_correction=false" in overrides, "method.softmax=plain" in overrides
    method, data = pic(*overrides)
    temperature = config_of(*PIC_WORDS, *overrides).method.options["temperature"]
    student = copy.deepcopy(method.student).double()
    weights = nn.Parameter(method.classes.weight.double())
    recipe, loader = method.recipe, data.train_dataloader()
    optimizer = torch.optim.SGD(
        [*student.parameters(), weights], recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
    )
    method.double()
    place = {image: row for row, image in enumerate(data.parts.pretraining.tolist())}
    ends = [step for step in range(1, len(loader) + 1) if step % accumulate == 0 or step == len(loader)]
    total, done, losses = 2 * len(ends), 0, []
    recent: list[int] = []
    visited: list[int] = []
    moving = torch.zeros(len(weights), dtype=torch.bool)
    for _ in range(2):
        for number, batch in enumerate(loader, start=1):
            views = [view.double() for view in method.views(batch)]
            own = [place[image] for image in batch.index.tolist()]
            allowed = torch.zeros(len(weights), dtype=torch.bool)
            allowed[own + recent if negatives else slice(None)] = True
            loss = torch.zeros((), dtype=torch.float64)
            for crop, view in enumerate(views):
                z, w = student(view), weights if crop == 0 else weights.detach()
                if not plain:
                    z, w = nn.functional.normalize(z), nn.functional.normalize(w)
                logits = z @ w.T / temperature
                loss = loss + nn.functional.cross_entropy(
                    logits.masked_fill(~allowed, -torch.inf), torch.tensor(own)
                ) / len(views)
            held = min(accumulate, len(loader) - (number - 1) // accumulate * accumulate)
            (loss / held).backward()
            losses.append(loss.item() / accumulate)
            visited += own
            moving |= allowed
            if number in ends:
                velocity = optimizer.state[weights].get("momentum_buffer", torch.zeros_like(weights))
                before = [values[~moving].clone() for values in (weights.data, velocity)]
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * (1 + math.cos(math.pi * done / total)) / 2
                optimizer.step()
                optimizer.zero_grad()
                for values, old in zip(
                    (weights.data, optimizer.state[weights]["momentum_buffer"]), before, strict=True
                ):
                    if rest:
                        values[~moving] = old
                moving[:] = False
                done += 1
                recent = list(dict.fromkeys([*reversed(visited), *recent]))[:negatives]
                visited = []
    velocity = optimizer.state[weights]["momentum_buffer"]
    return {"losses": losses, "student": student, "weights": weights.data, "velocity": velocity, "steps": done}


@pytest.mark.parametrize(
    ("overrides", "accumulate", "negatives"),
    [
        ((), 1, None),
        (("method.negatives=20",), 1, 20),
        (("method.negatives=20", "order.window=0.5", "optimizer.weight_decay=0.1"), 2, 20),
        (("method.negatives=10", *CROPS, "method.concat_views=false"), 1, 10),
        (("method.negatives=20", "method.weight_correction=false", "optimizer.weight_decay=0.1"), 1, 20),
        (("method.softmax=plain", "method.temperature=1.0", *CROPS, "method.concat_views=false"), 1, None),
    ],
)
def test_training_is_that_of_a_dense_optimiser_over_all_instance_weights(
    fit: Fit, overrides: tuple[str, ...], accumulate: int, negatives: int | None
) -> None:
    overrides = (*overrides, "optimizer.lr=0.3", "optimizer.schedule=step")
    expected = dense_training(overrides, accumulate, negatives)
    method, steps = fit(*PIC_WORDS, *overrides, double=True, accumulate_grad_batches=accumulate)
    assert isinstance(method, PIC)
    assert method.student_steps == expected["steps"]
    assert [step["loss"] for step in steps] == pytest.approx(expected["losses"], rel=1e-9)
    if negatives:
        assert int(method.classes.taken.min()) < method.student_steps  # some are behind
    if method.weight_correction:
        method.classes.catch_up(torch.arange(80), method.student_steps)
    torch.testing.assert_close(method.classes.weight, expected["weights"], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(method.classes.velocity, expected["velocity"], rtol=1e-8, atol=1e-10)
    for mine, theirs in zip(method.student.parameters(), expected["student"].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def test_the_rates_of_the_instance_weights_are_those_of_the_optimiser(fit: Fit) -> None:
    import pytorch_lightning as pl

    rates: list[float] = []

    class Watch(pl.Callback):
        def on_before_zero_grad(self, trainer: Any, method: Any, optimizer: Any) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    method, _ = fit(*PIC_WORDS, "optimizer.warmup=0.3", "optimizer.schedule=epoch", callbacks=[Watch()])
    assert isinstance(method, PIC)
    assert len(rates) == 10
    assert list(method.classes.rates) == rates


N, D, STEPS = 12, 6, 8


def new() -> PIC:
    method, _ = pic("method.negatives=15", f"method.projector.out={D}")
    method.double()
    method.classes.follow([0.1 * (step + 1) for step in range(STEPS)])
    return method


def take_step(method: PIC, number: int, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Step ``number`` on rows [first, first + count) of its global batch: the loss, and its gradient for them."""
    chosen = torch.randint(80, (N,), generator=torch.Generator().manual_seed(number))
    chosen[-1] = chosen[0]  # the same image on the first rank and the last
    index = method.instances[chosen][first : first + count]
    images = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    batch = Batch(images, index, index, Place(seed=0, epoch=0, step=number, first=first, size=N))
    z = randn(N, D, seed=number)[first : first + count].requires_grad_()
    loss = loss_of(method, [z], [z], batch)
    loss.backward()
    method.student_steps += 1
    method.follow_student()
    assert z.grad is not None
    return loss.detach(), z.grad


def test_saved_and_restored_in_the_middle_is_uninterrupted_bit_for_bit() -> None:
    whole, broken = new(), new()
    expected = [take_step(whole, number, 0, N)[0].item() for number in range(STEPS)]
    found = []
    for number in range(STEPS):
        if number == 5:
            saved = copy.deepcopy(broken.state_dict())
            broken = new()
            broken.load_state_dict(saved)
        found.append(take_step(broken, number, 0, N)[0].item())
    assert found == expected
    for name, values in whole.state_dict().items():
        assert values == broken.state_dict()[name] if isinstance(values, dict) else True
    assert all(map(torch.equal, whole.buffers(), broken.buffers()))


def state(method: PIC) -> dict[str, Tensor]:
    return {name: getattr(method.classes, name) for name in ("weight", "velocity", "taken")} | {"recent": method.recent}


def rank_program(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    method, count = new(), N // world
    found = [take_step(method, number, rank * count, count) for number in range(STEPS)]
    torch.save((found, state(method)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_have_the_loss_the_gradient_and_the_instance_weights_of_one_process(tmp_path: Path) -> None:
    world = 2
    in_ranks(rank_program, world, os.fspath(tmp_path), world=world)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    one = new()
    for number in range(STEPS):
        loss, gradient = take_step(one, number, 0, N)
        torch.testing.assert_close(torch.stack([found[number][0] for found, _ in ranks]).mean(), loss)
        # Parameters get the mean over ranks of what flows through each rank's own rows.
        torch.testing.assert_close(torch.cat([found[number][1] for found, _ in ranks]) / world, gradient)
    for _, found in ranks:
        for name, values in state(one).items():
            torch.testing.assert_close(found[name], values, rtol=1e-12, atol=1e-14)
            assert torch.equal(found[name], ranks[0][1][name])
