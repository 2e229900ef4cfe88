"""python -m ssl_bench plan: see ``--help``."""

from __future__ import annotations

from collections.abc import Sequence

from ssl_bench.config import experiments
from ssl_bench.config.settings import settings_text
from ssl_bench.entry import run_command
from ssl_bench.plan import costs
from ssl_bench.sweep import request

FILE = "plan.yaml"
HELP = """python -m ssl_bench plan NAME [key=value ...]

Shows what python -m ssl_bench sweep with the same options will cost on this machine: trains every kind of run that is
left for some steps, evaluates once for each dataset, and forecasts hours, disk and memory. Leaves nothing behind.
With count=true it counts the operations of training, the same on every machine and without data."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check all options, then measure and print; returns the exit status."""
    return run_command(arguments, help_text, lambda given: costs.show(request.read(given, FILE)))


def help_text() -> str:
    """Usage, what it does, options."""
    options = [*settings_text(FILE), *settings_text(request.FILE)]
    names = f"Tables and figures: {', '.join(experiments.names())}, or a file of your own, as ./mine.yaml"
    return "\n".join([HELP, "", names, "", "Options, with the allowed values:", *options])
