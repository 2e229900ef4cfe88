"""python -m ssl_bench report NAME: see ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ssl_bench.config import experiments
from ssl_bench.config.options import settings_text
from ssl_bench.entry import answer
from ssl_bench.errors import UserError
from ssl_bench.report.publish import OTHERS, other, report


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the words, then read, print and save; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if _names(words)[:1] == ["wandb"]:
        return int(other("wandb").main([word for word in words if word != "wandb"]))
    return answer(words, help_text, _report_named, interrupted="interrupted; what was written is whole.")


def _names(words: Sequence[str]) -> list[str]:
    return [word for word in words if "=" not in word and not word.startswith("-")]


def _report_named(words: list[str]) -> None:
    names = _names(words)
    if len(names) != 1:
        known = ", ".join([*experiments.names(), *OTHERS])
        raise UserError(f"one table or figure at a time, not {len(names)}: name one of {known}.")
    report(names[0], [word for word in words if word != names[0]])


def help_text() -> str:
    """Usage, tables and figures, options."""
    lines = [
        "python -m ssl_bench report NAME [key=value ...]",
        "",
        "Renders a table or a figure from finished runs and committed records, and trains nothing.",
        "",
        f"Names: {', '.join([*experiments.names(), *OTHERS])}",
        "",
        "Options, with the allowed values; every other key=value is set for all runs, as by the sweep:",
    ]
    return "\n".join([*lines, *settings_text("report.yaml")])
