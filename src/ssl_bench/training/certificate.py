"""What the command ``check`` trains and compares: methods in small, alone, among ranks, resumed, on two devices."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessException, start_processes
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_bench import distributed
from ssl_bench.batch import Batch
from ssl_bench.callbacks.checkpointer import Checkpointer
from ssl_bench.conditions import CHECKED_BATCH
from ssl_bench.config.compose import compose
from ssl_bench.devices import repeatable, resolve_device
from ssl_bench.evaluation.precision import full_float32
from ssl_bench.methods.base import Method
from ssl_bench.nn.norm import synchronize
from ssl_bench.training.build import build
from ssl_bench.training.server import server
from ssl_bench.training.trainer import build_trainer

# Relative to a tensor's largest entry. In double precision roots of vanishing eigenvalues make 1e-8 of 1e-16; in
# float32 two devices sum in different orders, which is up to 7e-5 of the first gradient and of the losses before and
# after the first step; TF32 in matrix products is at least 8e-4 of them, in convolutions 0.4. Later steps enlarge
# both until rounding cannot be distinguished from TF32.
TOLERANCE = {"float64": 1e-6, "float32": 5e-4}
STEPS = 5
RESUMED_AFTER = 2
SMALL = (
    "scale=smoke",
    f"batch_size={CHECKED_BATCH}",
    f"subset={CHECKED_BATCH * STEPS}",
    "epochs=1",
    "optimizer.warmup=0",
    "method.concat_views=false",
)
NORMS = ("alone", "synced")
SILENCE = 120  # seconds after which a rank that sends nothing is taken for lost

Trace = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What was found of a method: largest relative differences, and whether what must be equal bit for bit is."""

    differences: dict[str, float]
    equal: dict[str, bool]
    bf16: tuple[float, float]

    @property
    def holds(self) -> bool:
        return all(self.within(name) for name in self.differences) and all(self.equal.values())

    def within(self, name: str) -> bool:
        """Whether a difference is rounding."""
        return self.differences[name] <= TOLERANCE.get(name, TOLERANCE["float64"])


def examine(name: str, ranks: Sequence[Trace], folder: Path, device: str) -> Verdict:
    """Train ``name`` in this process and compare it with what the ``ranks`` of a group have trained."""
    found = {
        norms: compare(train(name, norms=norms, device=device), [rank[norms] for rank in ranks]) for norms in NORMS
    }
    differences = {
        "loss": max(found[norms]["loss"] for norms in NORMS),
        "gradient": max(found[norms]["gradient"] for norms in NORMS),
        **{norms: found[norms]["state"] for norms in NORMS},
        **(beside_cpu(name, device) if device != "cpu" else {}),
    }
    equal = {
        "ranks": all(found[norms]["replicas"] for norms in NORMS),
        "resume": resumes(name, folder, device),
    }
    return Verdict(differences, equal, bf16_drift(name, device))


# -- ranks ----------------------------------------------------------------------------------------


def train_in_ranks(methods: Sequence[str], world: int, folder: Path, device: str) -> dict[str, str]:
    """Train all ``methods`` in ``world`` processes, each into ``<folder>/<method>-<rank>.pt``; why some failed.

    A failure ends the group, so that no rank waits for another; the next group takes up behind the method.
    """
    failed: dict[str, str] = {}
    left = list(methods)
    while left:
        try:
            given = (world, str(folder), tuple(left), device)
            start_processes(_be_rank, given, world, start_method=server().get_start_method())  # type: ignore[no-untyped-call]
            return failed
        except ProcessException as error:
            done = [name for name in left if all((folder / f"{name}-{rank}.pt").exists() for rank in range(world))]
            left = [name for name in left if name not in done]
            if not left:
                return failed
            failed[left.pop(0)] = reason(error)
    return failed


def reason(error: Exception) -> str:
    """The sentence behind an error, be it another process's, whose whole traceback it brings."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ssl_bench.errors.UserError: ") if lines else type(error).__name__


def _be_rank(rank: int, world: int, folder: str, methods: Sequence[str], device: str) -> None:
    """One of the processes: every method in turn, in one process group."""
    own_card = device == "cuda" and torch.cuda.device_count() >= world
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank if own_card or device == "cpu" else 0),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        SSL_BENCH_MEETING=f"{folder}/meeting-{methods[0]}",
    )
    torch.set_num_threads(1)
    with distributed.joined(devices=world, nodes=1, cuda=own_card, timeout=SILENCE):
        for name in methods:
            found = {norms: train(name, norms=norms, device=device) for norms in NORMS}
            torch.save(found, f"{folder}/{name}-{rank}.pt")


# -- training -------------------------------------------------------------------------------------


def train(
    name: str,
    *,
    norms: str | None = None,
    precision: str = "32-true",
    keep: Path | None = None,
    resume: Path | None = None,
    device: str = "cpu",
    views_of_cpu: bool = False,
) -> Trace:
    """One epoch of ``name`` in this process or, in a group, on this rank's rows; what is returned lies on the CPU.

    norms: ``alone`` or ``synced``, in double precision; None keeps the method as users train it. keep: where the
    checkpoint after RESUMED_AFTER steps goes. resume: a checkpoint to resume from. device: ``cpu`` or ``cuda``.
    views_of_cpu: the views are drawn on the CPU, wherever the rest is done.
    """
    for talker in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(talker).setLevel(logging.ERROR)
    config = compose([f"method={name}", *SMALL], certified=True)
    method, data = build(config)
    if norms is not None:
        method.double()
    if norms == "alone":
        _forget_the_batch(method)
    elif norms == "synced":
        synchronize(method)
    if views_of_cpu:
        _draw_on_cpu(method)
    trace: Trace = {"losses": [], "gradients": []}
    callbacks: list[pl.Callback] = [_Diary(trace)]
    if keep is not None:
        path = keep.with_suffix(".last")
        callbacks += [Checkpointer(path, fingerprint=name, every_seconds=0.0), _Keep(path, keep)]
    with warnings.catch_warnings(), full_float32(torch.device(device)), repeatable(device == "cuda"):
        warnings.simplefilter("ignore")
        world, chosen = distributed.world_size(), config.trainer
        trainer = build_trainer(
            callbacks,
            device=resolve_device(device, "device"),
            # Ranks that share a card have one each, the same.
            devices=world if device == "cpu" or torch.cuda.device_count() >= world else 1,
            nodes=1,
            precision=precision,
            epochs=config.epochs * method.passes_per_epoch,
            accumulate=chosen.accumulate,
            clip=chosen.clip,
            share_statistics=False,
            folder=Path(config.runs_dir),
        )
        trainer.fit(method, datamodule=data, ckpt_path=resume)
    state = {key: value for key, value in method.state_dict().items() if isinstance(value, Tensor)}
    for group, kept in enumerate(trainer.optimizers[0].state.values()):
        state |= {f"optimizer.{group}.{key}": value for key, value in kept.items() if isinstance(value, Tensor)}
    trace["state"] = {key: value.detach().cpu().clone() for key, value in state.items()}
    return trace


class _Diary(pl.Callback):
    """Writes down the loss and every gradient of each step."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def on_before_optimizer_step(self, trainer: pl.Trainer, method: pl.LightningModule, optimizer: Any) -> None:
        # Averaged over ranks by now; what methods add of their own comes after this.
        found = {name: p.grad.cpu().clone() for name, p in method.named_parameters() if p.grad is not None}
        self.trace["gradients"].append(found)

    def on_train_batch_end(self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.trace["losses"].append(float(distributed.mean_over_ranks(outputs["loss"].detach())))


class _Keep(pl.Callback):
    """Keeps the checkpoint after RESUMED_AFTER steps."""

    def __init__(self, path: Path, kept: Path) -> None:
        self.path = path
        self.kept = kept

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == RESUMED_AFTER:
            shutil.copy(self.path, self.kept)


def _draw_on_cpu(method: Method) -> None:
    """Let the method see the views that the CPU draws: two devices round other numbers to other pixels."""
    views = copy.deepcopy(method.views)  # not a part of the method, so that it stays where it is

    def draw(batch: Batch, draw: int = 0) -> list[Tensor]:
        return [view.to(batch.images.device) for view in views(batch.to("cpu"), draw=draw)]

    method.views.forward = draw  # type: ignore[method-assign]


def _forget_the_batch(module: nn.Module) -> None:
    """Put a norm over each image's own channels in place of every BatchNorm."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            layer = nn.GroupNorm(1, child.num_features, affine=child.affine)
            layer.requires_grad_(any(p.requires_grad for p in child.parameters()))
            setattr(module, name, layer.double())
        else:
            _forget_the_batch(child)


# -- comparing ------------------------------------------------------------------------------------


def compare(one: Trace, ranks: Sequence[Trace]) -> dict[str, Any]:
    """Largest relative differences between one process and the ranks, and whether the ranks are equal."""
    return {
        "loss": max(loss_difference(one, rank) for rank in ranks),
        "gradient": max(gradient_difference(one, rank) for rank in ranks),
        "state": max(difference(one["state"], rank["state"]) for rank in ranks),
        "replicas": all(
            rank["state"].keys() == ranks[0]["state"].keys()
            and all(torch.equal(value, ranks[0]["state"][key]) for key, value in rank["state"].items())
            for rank in ranks
        ),
    }


def loss_difference(one: Trace, other: Trace, steps: int | None = None) -> float:
    """The largest relative difference of losses, of the first ``steps`` or of all."""
    pairs = list(zip(one["losses"], other["losses"], strict=True))[:steps]
    return max(float(abs(a - b) / max(abs(a), 1e-3)) for a, b in pairs)


def gradient_difference(one: Trace, other: Trace, steps: int | None = None) -> float:
    """The same of gradients."""
    pairs = list(zip(one["gradients"], other["gradients"], strict=True))[:steps]
    return max(difference(mine, theirs) for mine, theirs in pairs)


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Of two lists of named tensors: the largest relative difference; infinite where names or what is finite differ."""
    if one.keys() != other.keys():
        return float("inf")
    pairs = [(value.double(), other[key].double()) for key, value in one.items() if value.numel()]
    if not all(bool((a.isfinite() == b.isfinite()).all()) for a, b in pairs):
        return float("inf")
    # What is 0 but for rounding, as the gradient of a shift before a norm, is compared with the others' size.
    least = 1e-4 * max((float(a.abs().max()) for a, _ in pairs), default=0.0) + 1e-30
    return max((float((a - b).abs().max()) / max(float(a.abs().max()), least) for a, b in pairs), default=0.0)


def beside_cpu(name: str, device: str) -> dict[str, float]:
    """Largest relative differences from the CPU on the same views, in double precision and in float32."""
    doubles = [train(name, norms="synced", device=place, views_of_cpu=True) for place in ("cpu", device)]
    one, other = (train(name, device=place, views_of_cpu=True) for place in ("cpu", device))
    found = compare(doubles[0], doubles[1:])
    return {
        "float64": max(found["loss"], found["gradient"], found["state"]),
        "float32": single_difference(one, other),
    }


def single_difference(one: Trace, other: Trace) -> float:
    """Of two trainings in float32: what is compared with its tolerance."""
    return max(loss_difference(one, other, 2), gradient_difference(one, other, 1))


def resumes(name: str, folder: Path, device: str = "cpu") -> bool:
    """Whether a run from a checkpoint in mid-epoch ends as the uninterrupted one does, bit for bit."""
    checkpoint = folder / f"{name}.ckpt"
    whole = train(name, keep=checkpoint, device=device)
    again = train(name, resume=checkpoint, device=device)
    same_losses = whole["losses"][RESUMED_AFTER:] == again["losses"]
    return same_losses and all(torch.equal(value, again["state"][key]) for key, value in whole["state"].items())


def bf16_drift(name: str, device: str = "cpu") -> tuple[float, float]:
    """Difference of the loss under bf16-mixed, as a share of it or of 1: at the first step, and the largest."""
    plain, mixed = (
        train(name, precision=precision, device=device)["losses"] for precision in ("32-true", "bf16-mixed")
    )
    drifts = [abs(a - b) / max(abs(a), 1.0) for a, b in zip(plain, mixed, strict=True)]
    return drifts[0], max(drifts)
