"""What a table's or figure's runs cost, measured or counted, as ``python -m ssl_bench plan`` prints it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.plan import forecast
from ssl_bench.plan.forecast import Evaluation, Measured
from ssl_bench.sweep import cards, grid, local, request
from ssl_bench.sweep.grid import SweepRun
from ssl_bench.sweep.view import duration, totals

RATE = 1e14  # operations a second, to have hours beside a count
BUSY = 0.7  # processes that wait for a processor; above it a forecast is of a busy machine


@dataclass(frozen=True)
class Kind:
    """Runs that differ by their seed alone."""

    runs: list[SweepRun]
    left: list[SweepRun]

    @property
    def name(self) -> str:
        row, dataset = self.runs[0].kind
        return f"{row} on {dataset}"

    @property
    def took(self) -> float | None:
        """What those that are done took, on average."""
        known = [entry.seconds for entry in self.runs if entry.seconds is not None]
        return mean(known) if known else None


def show(asked: request.Request) -> None:
    """Measure every kind of run of which some are left, and print the forecast; or count the operations of all."""
    console = Console()
    if asked.settings["count"]:
        _count(asked, console)
        return
    for runs_dir in dict.fromkeys(config.runs_dir for config in asked.configs):
        if Path(runs_dir).exists() and not Path(runs_dir).is_dir():
            raise UserError(f"runs_dir={runs_dir} is no folder: choose another.")
    asked = request.placed(asked, [] if asked.settings["launcher"] == "slurm" else cards.found(asked.configs))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    entries = grid.entries(asked.cells, asked.configs, local.ask(grid.fingerprints, asked.configs))
    console.print(totals(entries), highlight=False, soft_wrap=True)
    if load > BUSY:
        console.print(f"warning: other processes are running (load {load:.1f}); they slow the forecast, too.")
    kinds = [kind for kind in _kinds(entries, asked) if kind.left or asked.settings["all"]]
    if not kinds:
        console.print("Nothing is left to run.")
        return
    table = _table(f"{asked.name}, scale={asked.settings['scale']}", gpus=bool(asked.cards))
    known: dict[str, Evaluation] = {}
    found: list[tuple[Kind, Measured]] = []
    for kind in kinds:
        console.print(f"measuring {kind.name}", highlight=False)
        try:
            with tempfile.TemporaryDirectory(prefix="ssl_bench-") as log:
                measured = local.ask(forecast.measure, kind.runs[0].config, known, folder=Path(log))
        except (UserError, RuntimeError) as error:
            # The others can be measured, as the sweep continues after a crash.
            table.add_row(escape(kind.name), str(len(kind.left)), "–")
            reason = str(error).strip().splitlines()[-1]
            console.print(f"{kind.name} cannot be measured: {reason}", highlight=False, markup=False, soft_wrap=True)
            continue
        known[measured.evaluation.key] = measured.evaluation
        found.append((kind, measured))
        table.add_row(
            escape(kind.name),
            str(len(kind.left)),
            f"{measured.step:.4f}",
            duration(forecast.seconds(measured, kind.runs[0].config)),
            "" if kind.took is None else duration(kind.took),
            _bytes(measured.memory),
            _bytes(forecast.disk(measured)),
            *([_bytes(measured.gpu_memory)] if asked.cards else []),
        )
    console.print(table)
    for sentence in _sentences(asked, found, left=sum(len(kind.left) for kind in kinds)):
        console.print(sentence, highlight=False, soft_wrap=True)


def _count(asked: request.Request, console: Console) -> None:
    """Print what the training of every kind of run takes in operations, and what that is in hours."""
    kinds: dict[tuple[str, str], list[Config]] = {}
    for cell, config in zip(asked.cells, asked.configs, strict=True):
        kinds.setdefault((cell.row, cell.dataset), []).append(config)
    table = Table(title=f"{asked.name}, scale={asked.settings['scale']}")
    table.add_column("runs")
    for column in ("number", "images seen by one", "operations of one"):
        table.add_column(column, justify="right")
    total = 0
    counted = local.ask(forecast.operations, [configs[0] for configs in kinds.values()])
    for ((row, dataset), configs), (seen, operations) in zip(kinds.items(), counted, strict=True):
        total += len(configs) * operations
        table.add_row(escape(f"{row} on {dataset}"), str(len(configs)), f"{seen:,}", f"{operations:.2e}")
    console.print(table)
    console.print(
        f"All {len(asked.configs)} runs: {total:.2e} operations of training, {total / RATE / 3600:,.1f} hours at "
        f"{RATE / 1e12:.0f} TFLOP/s; less on a device that sustains more. Evaluation is not counted.",
        highlight=False,
        soft_wrap=True,
    )


def _kinds(entries: list[SweepRun], asked: request.Request) -> list[Kind]:
    open_states = {"left", "interrupted", *(["failed"] if asked.settings["retry_failed"] else [])}
    kinds: dict[tuple[str, str], list[SweepRun]] = {}
    for entry in entries:
        kinds.setdefault(entry.kind, []).append(entry)
    return [Kind(runs, [entry for entry in runs if entry.state in open_states]) for runs in kinds.values()]


def _sentences(asked: request.Request, found: Sequence[tuple[Kind, Measured]], *, left: int) -> Iterator[str]:
    """What stands below the table of what was ``found``; left: runs, of which not all may be measured."""
    runs = [(entry, measured) for kind, measured in found for entry in kind.left]
    seconds = sum(forecast.seconds(each, entry.config) * (1.0 - (entry.progress() or 0.0)) for entry, each in runs)
    charged: set[Path] = set()  # files of what several runs have in common
    shared = sum(forecast.baselines(measured, entry.config, charged) for entry, measured in runs)
    if shared:
        yield f"Random weights and raw pixels, once for the same images, network and seed: {duration(shared)}."
    jobs_of_a_cluster = asked.settings["launcher"] == "slurm"
    at_once = 1 if jobs_of_a_cluster else max(1, min(asked.jobs, left))
    disk = sum(forecast.disk(measured) for _, measured in runs)
    memory = max((measured.memory for _, measured in found), default=0) * at_once
    gpu_memory = max((measured.gpu_memory for _, measured in found), default=0)
    of_gpu = f", {_bytes(gpu_memory)} of a GPU's for a run" if gpu_memory else ""
    share = f" with jobs={asked.jobs}" if at_once > 1 else ""
    share += " one after another, where a cluster runs them side by side" if jobs_of_a_cluster else ""
    share += f" and {len(asked.cards)} GPU(s)" if asked.cards else ""
    yield (
        f"All runs that are left: {(seconds + shared) / 3600 / at_once:.2f} hours on this machine{share}, "
        f"{_bytes(disk)} of disk, {_bytes(memory)} of memory{of_gpu}."
        + (f" {left - len(runs)} run(s) could not be measured." if left > len(runs) else "")
    )
    devices = max(config.trainer.processes for config in asked.configs)
    if devices > 1:
        yield (
            f"Measured on one device with the whole batch; {devices} devices divide the steps among them at best, and "
            "what they send each other is not in the forecast."
        )


def _bytes(count: float) -> str:
    return decimal(round(count))


def _table(title: str, *, gpus: bool) -> Table:
    table = Table(title=title)
    table.add_column("runs")
    for column in ("left", "s/step", "forecast", "took", "memory", "disk", *(["GPU memory"] if gpus else [])):
        table.add_column(column, justify="right")
    return table
