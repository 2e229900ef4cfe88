"""python -m ssl_bench report NAME: see ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_bench.config import experiments
from ssl_bench.config.settings import near_or_all, read_settings, settings_text
from ssl_bench.entry import run_command
from ssl_bench.errors import UserError
from ssl_bench.report import dashboard, dynamics, publish, render
from ssl_bench.report.records import Run

HELP = """python -m ssl_bench report NAME [key=value ...]

Renders a table or a figure from finished runs and committed records, and trains nothing."""
WANDB = """python -m ssl_bench report wandb [key=value ...]

Defines the W&B dashboard of a table or figure: one saved view per dataset, of the runs that W&B groups under the
table's name, with one line per row, which is the mean over seeds with its standard deviation, in the row's colour. A
second time, the views are updated: anything changed in them by hand is lost, other views are not touched."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the arguments, then read, print and save; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    return run_command(given, help_text, _report, interrupted="interrupted; what was written is whole.")


def _report(given: list[str]) -> None:
    names = [argument for argument in given if "=" not in argument]
    known = [*experiments.names(), *experiments.without_runs(), *OTHERS]
    if len(names) != 1:
        raise UserError(f"one table or figure at a time, not {len(names)}: name one of {', '.join(known)}.")
    (name,) = names
    options = [argument for argument in given if argument != name]
    if name in OTHERS:
        OTHERS[name](options)
    elif name in known or name.endswith(".yaml"):
        publish.report(name, options, _seen)
    else:
        raise UserError(f"there is no table or figure {name!r}{near_or_all(name, known)}")


def _seen(show: Mapping[str, Any], runs: Sequence[Run], data_dir: str | None) -> Sequence[Any]:
    from ssl_bench.encoders.of_runs import features_of_runs, maps_of_runs  # it imports PyTorch

    if show["kind"] == "saliency":
        return maps_of_runs(runs, data_dir, show["protocols"][0])
    return features_of_runs(runs, data_dir)


def _table1(options: Sequence[str]) -> None:
    from ssl_bench.report import datasets  # its readers import PyTorch

    settings = read_settings("report.yaml", options)
    if settings["on"] != "test":
        raise UserError("table1 has no accuracies: leave on=validation out.")
    print(datasets.markdown(datasets.table1()), end="")
    if settings["out"] is not None:
        publish.save(Path(settings["out"]), datasets.write)


def _wandb(options: Sequence[str]) -> None:
    dashboard.dashboard(read_settings("dashboard.yaml", options))


def _dynamics(options: Sequence[str]) -> None:
    settings = read_settings("dynamics.yaml", options)
    found = dynamics.curves(settings)
    print(render.markdown(dynamics.table(settings, found)), end="")
    if settings["out"] is not None:
        publish.save(Path(settings["out"]), lambda folder: dynamics.write(folder, settings, found))


OTHERS: dict[str, Callable[[Sequence[str]], None]] = {  # that are no sweeps
    "table1": _table1,
    "directpred_dynamics": _dynamics,
    "wandb": _wandb,
}


def help_text() -> str:
    """Usage, tables and figures, options."""
    names = ", ".join([*experiments.names(), *experiments.without_runs(), *OTHERS])
    return "\n".join(
        [
            *(HELP, "", f"Names: {names}, or a file of your own, as ./mine.yaml", ""),
            "Options, with the allowed values; every other key=value is set for all runs, as by the sweep:",
            *settings_text("report.yaml"),
            *("", WANDB, "", "Options, with the allowed values:"),
            *settings_text("dashboard.yaml"),
        ]
    )
