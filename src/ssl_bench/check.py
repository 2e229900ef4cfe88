"""python -m ssl_bench.check: a certificate that several processes train what one trains, and a killed run goes on.

For every method, on real images, with different images on every rank and double precision:

- loss, gradient of every parameter and the whole state after an epoch of optimiser steps equal one process on the
  global batch: with norm layers that know no batch (``alone``), and with batch statistics over all ranks (``synced``);
- every rank holds the same state (``ranks``);
- a run that goes on from a checkpoint in mid-epoch ends bit for bit where an uninterrupted one does (``resume``);
- how far the loss under bf16-mixed is from that in float32, at the first step and at most in the epoch (``bf16``),
  is shown and not judged.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_bench.config import compose
from ssl_bench.entry import answer
from ssl_bench.errors import UserError
from ssl_bench.options import GROUPS, near_or_all, read_settings, settings_text

# In double precision, relative to a tensor's largest entry. Roots of vanishing eigenvalues make 1e-8 of 1e-16.
TOLERANCE = 1e-6
BATCH_SIZE = 12  # which 2, 3, 4, 6 and 12 processes divide
STEPS = 5
RESUMED_AFTER = 2
SMALL = (
    "scale=smoke",
    f"batch_size={BATCH_SIZE}",
    f"subset={BATCH_SIZE * STEPS}",
    "epochs=1",
    "optimizer.warmup=0",
    "method.concat_views=false",
)
# What the short scale leaves out by default.
HARDER = {
    "swav": ("method.queue=24", "method.queue_from=1"),
    "pic": ("method.negatives=20",),
    "directpred": ("method.freq=2",),
    "byol": ("augment.groups.local.count=1",),
    "simclr": ("augment.groups.local.count=1",),
    "moco": (f"method.queue={4 * BATCH_SIZE}",),
    "moby": (f"method.queue={2 * BATCH_SIZE}",),
}
NORMS = ("alone", "synced")

Trace = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the words, then the methods; 0 if all hold, 1 if one does not, 2 for a wrong word."""
    return answer(arguments, help_text, lambda words: certify(*read(words)))


def help_text() -> str:
    """Usage, what is checked, options."""
    lines = ["python -m ssl_bench.check [key=value ...]", "", str(__doc__).partition("\n\n")[2]]
    return "\n".join([*lines, "Options, with the allowed values:", *settings_text("check.yaml")])


def read(words: Sequence[str]) -> tuple[list[str], int]:
    """The methods and the number of processes; UserError for any other word."""
    settings = read_settings("check.yaml", words)
    methods = GROUPS["method"] if settings["method"] == "all" else settings["method"].split(",")
    for name in methods:
        if name not in GROUPS["method"]:
            raise UserError(f"method={name} is unknown{near_or_all(name, GROUPS['method'])}")
    if BATCH_SIZE % settings["world"]:
        raise UserError(f"world={settings['world']} does not divide the {BATCH_SIZE} images of the checked batch.")
    return methods, settings["world"]


def certify(methods: Sequence[str], world: int) -> int:
    """Train every method alone and in ``world`` processes, print the table; 0 if everything holds."""
    import torch
    from rich.console import Console
    from rich.table import Table
    from torch.multiprocessing.spawn import spawn

    columns = ("loss", "gradient", "alone", "synced", "ranks", "resume", "bf16")
    table = Table(*("method", *columns), title=f"{world} processes beside one: largest relative differences")
    for column in table.columns:
        column.no_wrap = True
    held = True
    with tempfile.TemporaryDirectory(prefix="ssl_bench-") as folder:
        spawn(_be_rank, args=(world, folder, tuple(methods)), nprocs=world)  # type: ignore[no-untyped-call]
        torch.set_num_threads(1)
        for name in methods:
            ranks = [torch.load(f"{folder}/{name}-{rank}.pt", weights_only=True) for rank in range(world)]
            found = {norms: compare(train(name, norms=norms), [rank[norms] for rank in ranks]) for norms in NORMS}
            figures = {
                "loss": max(found[norms]["loss"] for norms in NORMS),
                "gradient": max(found[norms]["gradient"] for norms in NORMS),
                **{norms: found[norms]["state"] for norms in NORMS},
            }
            verdicts = {column: figure <= TOLERANCE for column, figure in figures.items()}
            verdicts["ranks"] = all(found[norms]["replicas"] for norms in NORMS)
            verdicts["resume"] = resumes(name, Path(folder))
            held = held and all(verdicts.values())
            cells = [_cell(verdicts[column], figures.get(column)) for column in columns[:-1]]
            table.add_row(name, *cells, "–".join(f"{drift:.0%}" for drift in bf16_drift(name)))
    console = Console()
    console.print(table)
    console.print(
        "Every method holds." if held else f"[red]A method does not hold[/red]; up to {TOLERANCE:g} is rounding."
    )
    return 0 if held else 1


def _cell(holds: bool, figure: float | None) -> str:
    said = ("equal" if holds else "differs") if figure is None else f"{figure:.0e}"
    return said if holds else f"[red]{said}[/red]"


def _be_rank(rank: int, world: int, folder: str, methods: Sequence[str]) -> None:
    """One of the processes: every method in turn, in one process group."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        SSL_BENCH_MEETING=f"{folder}/meeting",
    )
    import torch

    from ssl_bench import distributed

    torch.set_num_threads(1)
    with distributed.joined(devices=world, nodes=1, cuda=False, timeout=120):
        for name in methods:
            torch.save({norms: train(name, norms=norms) for norms in NORMS}, f"{folder}/{name}-{rank}.pt")


def train(
    name: str,
    *,
    norms: str | None = None,
    precision: str = "32-true",
    keep: Path | None = None,
    resume: Path | None = None,
) -> Trace:
    """One epoch of ``name`` in this process or, in a group, on this rank's rows.

    norms: ``alone`` or ``synced``, in double precision; None keeps the method as users train it. keep: where the
    checkpoint after RESUMED_AFTER steps goes. resume: a checkpoint to go on from.
    """
    import pytorch_lightning as pl

    from ssl_bench import distributed
    from ssl_bench.build import build
    from ssl_bench.callbacks.checkpointer import Checkpointer, WholeCheckpointIO
    from ssl_bench.nn.norm import synchronize
    from ssl_bench.ranks import Joined, Replicated

    method, data = build(compose([f"method={name}", *SMALL, *HARDER.get(name, ())]))
    if norms is not None:
        method.double()
    if norms == "alone":
        _forget_the_batch(method)
    elif norms == "synced":
        synchronize(method, cuda=False)
    trace: Trace = {"losses": [], "gradients": []}

    class Diary(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, method: pl.LightningModule, optimizer: Any) -> None:
            # Averaged over ranks by now; what methods add of their own comes after this.
            trace["gradients"].append(
                {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
            )

        def on_train_batch_end(self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, *_: Any) -> None:
            trace["losses"].append(float(distributed.mean_over_ranks(outputs["loss"].detach())))

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if keep is not None and trainer.global_step == RESUMED_AFTER:
                shutil.copy(path, keep)

    for talker in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(talker).setLevel(logging.ERROR)
    several = distributed.world_size() > 1
    callbacks: list[pl.Callback] = [Diary()]
    path = keep.with_suffix(".last") if keep is not None else Path()
    if keep is not None:
        callbacks += [Checkpointer(path, fingerprint=name, every_seconds=0.0), Keep()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=distributed.world_size(),
            strategy=Replicated(sync_buffers=False) if several else "auto",
            precision=precision,  # type: ignore[arg-type]
            max_epochs=1,
            logger=False,
            callbacks=callbacks,
            plugins=[WholeCheckpointIO(), Joined(1)],
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(method, datamodule=data, ckpt_path=resume)
    state = {key: value for key, value in method.state_dict().items() if hasattr(value, "dtype")}
    for group, kept in enumerate(trainer.optimizers[0].state.values()):
        state |= {f"optimizer.{group}.{key}": value for key, value in kept.items() if hasattr(value, "dtype")}
    trace["state"] = {key: value.detach().clone() for key, value in state.items()}
    return trace


def _forget_the_batch(module: Any) -> None:
    """Put a norm over each image's own channels in place of every BatchNorm."""
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            layer = nn.GroupNorm(1, child.num_features, affine=child.affine)
            layer.requires_grad_(any(p.requires_grad for p in child.parameters()))
            setattr(module, name, layer.double())
        else:
            _forget_the_batch(child)


def compare(one: Trace, ranks: Sequence[Trace]) -> dict[str, Any]:
    """Largest relative differences between one process and the ranks, and whether the ranks are equal."""
    import torch

    gradients = [
        difference(mine, theirs)
        for rank in ranks
        for mine, theirs in zip(one["gradients"], rank["gradients"], strict=True)
    ]
    return {
        "loss": max(
            abs(a - b) / max(abs(a), 1e-3) for rank in ranks for a, b in zip(one["losses"], rank["losses"], strict=True)
        ),
        "gradient": max(gradients),
        "state": max(difference(one["state"], rank["state"]) for rank in ranks),
        "replicas": all(
            rank["state"].keys() == ranks[0]["state"].keys()
            and all(torch.equal(value, ranks[0]["state"][key]) for key, value in rank["state"].items())
            for rank in ranks
        ),
    }


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Of two lists of named tensors: the largest relative difference; infinite where the names differ."""
    if one.keys() != other.keys():
        return float("inf")
    pairs = [(value.double(), other[key].double()) for key, value in one.items() if value.numel()]
    # What is 0 but for rounding, as the gradient of a shift before a norm, is compared with the others' size.
    least = 1e-4 * max((float(a.abs().max()) for a, _ in pairs), default=0.0) + 1e-30
    return max((float((a - b).abs().max()) / max(float(a.abs().max()), least) for a, b in pairs), default=0.0)


def resumes(name: str, folder: Path) -> bool:
    """Whether a run from a checkpoint in mid-epoch ends as the uninterrupted one does, bit for bit."""
    import torch

    checkpoint = folder / f"{name}.ckpt"
    whole = train(name, keep=checkpoint)
    again = train(name, resume=checkpoint)
    same_losses = whole["losses"][RESUMED_AFTER:] == again["losses"]
    return same_losses and all(torch.equal(value, again["state"][key]) for key, value in whole["state"].items())


def bf16_drift(name: str) -> tuple[float, float]:
    """Difference of the loss under bf16-mixed, as a share of it or of 1: at the first step, and the largest."""
    plain, mixed = train(name)["losses"], train(name, precision="bf16-mixed")["losses"]
    drifts = [abs(a - b) / max(abs(a), 1.0) for a, b in zip(plain, mixed, strict=True)]
    return drifts[0], max(drifts)


if __name__ == "__main__":
    sys.exit(main())
