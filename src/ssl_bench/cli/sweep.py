"""python -m ssl_bench sweep: see ``--help``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from ssl_bench.config import experiments
from ssl_bench.config.settings import settings_text
from ssl_bench.entry import run_command
from ssl_bench.errors import SIGNALLED
from ssl_bench.files import require_writable
from ssl_bench.sweep import cards, grid, local, loop, request
from ssl_bench.sweep.grid import SweepRun
from ssl_bench.sweep.view import View, totals

HELP = """python -m ssl_bench sweep NAME [key=value ...]

Runs all that a table or figure is made of, each in a process of its own. Runs that are done are skipped, interrupted
ones resume, failed ones are listed and tried again with retry_failed=true. The same command resumes after whatever
ended it. Other options are set for every run: epochs=5 optimizer.lr=0.1 logger=wandb runs_dir=runs

Ends with status 0 if all runs are done."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check all options, read the data and the store, then run what is left; returns the exit status."""
    return run_command(
        arguments,
        help_text,
        lambda given: sweep(request.read(given)),
        interrupted="interrupted; the same command resumes.",
    )


def help_text() -> str:
    """Usage, what it does, options."""
    names = f"Tables and figures: {', '.join(experiments.names())}, or a file of your own, as ./mine.yaml"
    return "\n".join([HELP, "", names, "", "Options, with the allowed values:", *settings_text(request.FILE)])


def sweep(asked: request.Request) -> int:
    """Run what is left of the runs asked for, and show at the end what is not done."""
    console = Console()
    for runs_dir in dict.fromkeys(config.runs_dir for config in asked.configs):
        require_writable(Path(runs_dir), f"runs_dir={runs_dir}")
    asked = request.placed(asked, [] if asked.settings["launcher"] == "slurm" else cards.found(asked.configs))
    start = _starter(asked)
    console.print(f"{asked.name}: checking {len(asked.cells)} run(s)", highlight=False)
    names = local.ask(grid.fingerprints, asked.configs)
    entries = grid.entries(asked.cells, asked.configs, names)
    console.print(totals(entries), highlight=False, soft_wrap=True)
    resting = {"done"} if asked.settings["retry_failed"] else {"done", "failed"}
    if any(entry.state not in resting for entry in entries):
        request.require_cards(asked)
        if asked.settings["launcher"] == "local" and any(config.trainer.compile for config in asked.configs):
            local.ask(grid.require_compiling, asked.configs)
    title = f"{asked.name}, scale={asked.settings['scale']}"
    with View(console, title, entries, asked.jobs) as view:
        stopped = loop.run(entries, start, slots=asked.jobs, retry_failed=asked.settings["retry_failed"], watcher=view)
    _conclude(console, entries)
    if stopped:
        sentence = f"stopped by {signal.Signals(stopped).name}; the same command resumes from the last checkpoints."
        print("ssl_bench:", sentence, file=sys.stderr)
        return SIGNALLED + stopped
    return 0 if all(entry.state == "done" for entry in entries) else 1


def _starter(asked: request.Request) -> Callable[[SweepRun], loop.Job | None]:
    if asked.settings["launcher"] == "slurm":
        from ssl_bench.sweep.slurm import submitter

        return submitter(asked.settings, Path(asked.configs[0].runs_dir))
    return cards.starter(asked.cards, asked.jobs)


def _conclude(console: Console, entries: Sequence[SweepRun]) -> None:
    """The totals, and of every run that failed or did not get through: why, and the command that runs it alone."""
    for entry in entries:
        if entry.state not in ("failed", "interrupted") or not entry.error:  # as where the whole sweep was stopped
            continue
        lines = [f"{entry.state}: {entry.cell.name}: {entry.error}", f"    {entry.cell.command}"]
        if entry.folder.log.exists():
            lines.append(f"    {entry.folder.log}")
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    changed = sorted({entry.config.method.name for entry in entries if entry.changed and entry.state == "done"})
    if changed:
        sentence = (
            f"The code of {', '.join(changed)} has changed since runs here were trained: rerun=true trains them again."
        )
        console.print(sentence, highlight=False, soft_wrap=True)
    if any(entry.state == "failed" and not entry.damaged for entry in entries):
        console.print("Failed runs are tried again by the same command with retry_failed=true.", highlight=False)
    console.print(totals(entries), highlight=False, soft_wrap=True)
