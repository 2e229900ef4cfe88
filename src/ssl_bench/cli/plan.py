"""python -m ssl_bench plan: see ``--help``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from ssl_bench.config import experiments
from ssl_bench.config.options import settings_text
from ssl_bench.entry import answer
from ssl_bench.errors import UserError
from ssl_bench.plan import forecast
from ssl_bench.plan.forecast import Evaluation
from ssl_bench.sweep import cards, grid, local, words
from ssl_bench.sweep.grid import SweepRun
from ssl_bench.sweep.view import duration, totals

FILE = "plan.yaml"
BUSY = 0.7  # processes that wait for a processor; above it a forecast is of a busy machine
HELP = """python -m ssl_bench plan NAME [key=value ...]

Says what python -m ssl_bench sweep with the same words will cost on this machine: trains every kind of run that is left
for some steps, evaluates once for each dataset, and forecasts hours, disk and memory. Leaves nothing behind."""


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Check all words, then measure and print; returns the exit status."""
    return answer(arguments, help_text, lambda given: plan(words.read(given, FILE)))


def help_text() -> str:
    """Usage, what it does, options."""
    options = [*settings_text(FILE), *settings_text(words.FILE)]
    names = f"Tables and figures: {', '.join(experiments.names())}"
    return "\n".join([HELP, "", names, "", "Options, with the allowed values:", *options])


def plan(asked: words.Asked) -> None:
    """Measure every kind of run of which some are left, and print the forecast."""
    console = Console()
    asked = words.placed(asked, [] if asked.settings["launcher"] == "slurm" else cards.found(asked.configs))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    entries = grid.entries(asked.cells, asked.configs, local.ask(grid.fingerprints, asked.configs))
    console.print(totals(entries), highlight=False, soft_wrap=True)
    if load > BUSY:
        console.print(f"warning: other processes are running (load {load:.1f}); they slow the forecast, too.")
    open_states = {"left", "interrupted", *(["failed"] if asked.settings["retry_failed"] else [])}
    kinds = []
    for label in dict.fromkeys(entry.kind for entry in entries):
        runs = [entry for entry in entries if entry.kind == label]
        kinds.append(Kind(runs, [entry for entry in runs if entry.state in open_states]))
    wanted = [kind for kind in kinds if kind.left or asked.settings["all"]]
    if not wanted:
        console.print("Nothing is left to run.")
        return
    table = _table(f"{asked.name}, scale={asked.settings['scale']}", gpus=bool(asked.cards))
    known: dict[str, Evaluation] = {}
    seconds, disk, memory, gpu_memory, unknown, shared = 0.0, 0, 0, 0, 0, 0.0
    charged: set[Path] = set()
    for kind in wanted:
        console.print(f"measuring {kind.name}", highlight=False)
        try:
            with tempfile.TemporaryDirectory(prefix="ssl_bench-") as log:
                measured = local.ask(forecast.measure, kind.runs[0].config, known, folder=Path(log))
        except (UserError, RuntimeError) as error:
            # The others can be measured, as the sweep continues after a crash.
            unknown += len(kind.left)
            table.add_row(escape(kind.name), str(len(kind.left)), "–", escape(str(error).strip().splitlines()[-1]))
            continue
        known[measured.evaluation.key] = measured.evaluation
        one = forecast.seconds(measured, kind.runs[0].config)
        seconds += sum(one * (1.0 - (entry.progress() or 0.0)) for entry in kind.left)
        shared += sum(forecast.baselines(measured, entry.config, charged) for entry in kind.left)
        disk += forecast.disk(measured) * len(kind.left)
        memory, gpu_memory = max(memory, measured.memory), max(gpu_memory, measured.gpu_memory)
        table.add_row(
            escape(kind.name),
            str(len(kind.left)),
            f"{measured.step:.4f}",
            duration(one),
            "" if kind.took is None else duration(kind.took),
            decimal(round(measured.memory)),
            decimal(round(forecast.disk(measured))),
            *([decimal(round(measured.gpu_memory))] if asked.cards else []),
        )
    console.print(table)
    if shared:
        console.print(
            f"Random weights and raw pixels, once for the same images, network and seed: {duration(shared)}.",
            highlight=False,
            soft_wrap=True,
        )
    of_gpu = f", {decimal(round(gpu_memory))} of a GPU's for a run" if gpu_memory else ""
    at_once = min(asked.jobs, sum(len(kind.left) for kind in wanted))
    share = f" with jobs={asked.jobs}" if asked.jobs > 1 else ""
    share += f" and {len(asked.cards)} GPU(s)" if asked.cards else ""
    console.print(
        f"All runs that are left: {(seconds + shared) / 3600 / max(1, at_once):.2f} hours on this machine{share}, "
        f"{decimal(round(disk))} of disk, {decimal(round(memory * max(1, at_once)))} of memory{of_gpu}."
        + (f" {unknown} run(s) could not be measured." if unknown else ""),
        highlight=False,
        soft_wrap=True,
    )
    devices = {config.trainer.processes for config in asked.configs}
    if max(devices) > 1:
        console.print(
            f"Measured on one device with the whole batch; {max(devices)} devices divide the steps among them at best, "
            "and what they tell each other is not in the forecast.",
            highlight=False,
            soft_wrap=True,
        )


def _table(title: str, *, gpus: bool) -> Table:
    table = Table(title=title)
    for number, column in enumerate(
        ("runs", "left", "s/step", "forecast", "took", "memory", "disk", *(["GPU memory"] if gpus else []))
    ):
        table.add_column(column, justify="right" if number else "left")
    return table
