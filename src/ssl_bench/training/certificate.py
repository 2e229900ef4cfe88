"""What the command ``check`` trains and compares: methods in small, alone, among ranks, resumed, on two devices."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.multiprocessing.spawn import ProcessException, start_processes

from ssl_bench import distributed
from ssl_bench.devices import device_name, resolve_device
from ssl_bench.training.server import server
from ssl_bench.training.trace import RESUMED_AFTER, Trace, train

# Relative to a tensor's largest entry. In double precision roots of vanishing eigenvalues make 1e-8 of 1e-16; in
# float32 two devices sum in different orders, which is up to 7e-5 of the first gradient and of the losses before and
# after the first step; TF32 in matrix products is at least 8e-4 of them, in convolutions 0.4. Later steps enlarge
# both until rounding cannot be distinguished from TF32.
TOLERANCE = {"float64": 1e-6, "float32": 5e-4}
NORMS = ("alone", "synced")
COLUMNS = ("loss", "gradient", "alone", "synced", "float64", "float32", "ranks", "resume", "bf16")
CUDA_ALONE = ("float64", "float32")
SILENCE = 120  # seconds after which a rank that sends nothing is taken for lost


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


def certify(methods: Sequence[str], world: int, device: str) -> int:
    """Train every method alone and in ``world`` processes, print the table; 0 if everything holds."""
    console = Console()
    device = resolve_device(device, "device").type
    columns = [column for column in COLUMNS if device == "cuda" or column not in CUDA_ALONE]
    title = f"{world} processes beside one on {device_name(torch.device(device))}: largest relative differences"
    table = Table("method", *columns, title=title)
    for column in table.columns:
        column.no_wrap = True
    held = True
    with tempfile.TemporaryDirectory(prefix="ssl_bench-") as name_of_folder:
        folder = Path(name_of_folder)
        failed = train_in_ranks(methods, world, folder, device)
        torch.set_num_threads(1)
        for name in methods:
            if name not in failed:
                try:
                    ranks = [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(world)]
                    verdict = examine(name, ranks, folder, device)
                    held = held and verdict.holds
                    table.add_row(name, *(_cell(verdict, column) for column in columns))
                    continue
                except Exception as error:  # of this method alone
                    failed[name] = reason(error)
            table.add_row(name, "[red]failed[/red]")
    console.print(table)
    for name, sentence in failed.items():
        console.print(f"{name} failed: {sentence}", highlight=False, markup=False, soft_wrap=True)
    if failed:
        console.print(
            "What a method needs to be checked on so few images, its file's block check sets.", soft_wrap=True
        )
    held = held and not failed
    rounding = f"up to {TOLERANCE['float64']:g}, in float32 {TOLERANCE['float32']:g}, is rounding"
    console.print("Every method holds." if held else f"[red]A method does not hold[/red]; {rounding}.")
    return 0 if held else 1


def _cell(verdict: Verdict, column: str) -> str:
    if column == "bf16":
        return "–".join(f"{drift:.0%}" for drift in verdict.bf16)
    if column in verdict.equal:
        holds, text = verdict.equal[column], "equal" if verdict.equal[column] else "differs"
    else:
        holds, text = verdict.within(column), f"{verdict.differences[column]:.0e}"
    return text if holds else f"[red]{text}[/red]"


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
