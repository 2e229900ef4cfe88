"""The command line of a run: its flags, its help, and what ``-m`` makes of it."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import yaml

from ssl_bench.commands import commands_text
from ssl_bench.config import compose, multirun, parse
from ssl_bench.config.defaults import leaves
from ssl_bench.config.options import GROUPS, typed
from ssl_bench.config.schema import Config
from ssl_bench.entry import guarded
from ssl_bench.errors import UserError


class _Flags(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}.")


def main(
    task: multirun.Task,
    arguments: Sequence[str] | None = None,
    *,
    check: Callable[[Config], object] = lambda config: None,
    value: Callable[[Any], float] = float,
    show: multirun.Show = lambda result, tuning: None,
    conclude: multirun.Conclude = lambda outcomes, tuning: None,
) -> int:
    """Run ``task`` for the command line's one run or, with ``-m``, for each of its runs; returns the exit status.

    check: raises UserError for a configuration that cannot be run; it sees all of them before one is run. value, show,
    conclude: as of `multirun.multirun`.
    """

    def work() -> int | None:
        flags = _Flags(add_help=False, allow_abbrev=False)
        flags.add_argument("overrides", nargs="*")
        flags.add_argument("-h", "--help", action="store_true")
        flags.add_argument("-m", "--multirun", action="store_true")
        flags.add_argument("--cfg", choices=["job"])
        given, unknown = flags.parse_known_intermixed_args(arguments)
        if unknown:
            raise UserError(
                f"{unknown[0]} is unknown: flags are --help, -m and --cfg job; options are set as key=value."
            )
        if given.help:
            print(help_text(given.overrides))
        elif given.cfg:
            print(
                yaml.safe_dump(compose.compose(given.overrides).as_dict(), sort_keys=False, allow_unicode=True), end=""
            )
        elif given.multirun:
            return multirun.multirun(task, given.overrides, check=check, value=value, show=show, conclude=conclude)
        else:
            config = compose.compose(given.overrides)
            check(config)
            show(task(config), False)
        return None

    return guarded(work, interrupted="interrupted; the same command resumes from the last checkpoint.")


def help_text(overrides: Sequence[str] = ()) -> str:
    """Usage, groups, and every option with its value under ``overrides``, allowed values and meaning."""
    config, options, choices = compose.composed(next(parse.cells(overrides)))
    values = dict(leaves(config))
    lines = [
        "python -m ssl_bench [COMMAND] [-m] [key=value ...]",
        "",
        *commands_text(),
        "",
        "Trains one self-supervised method on one dataset and prints a table of accuracies.",
        "With -m, comma-separated values run one after another: -m method=clbo,byol seed=0,1,2",
        "Hydra's plugins work with -m: hydra/launcher=joblib; hydra/sweeper=optuna, best on validation.",
        "With --cfg job, the whole configuration is printed and nothing runs.",
        "",
        "Choices (--help after a choice shows its options, as in method=byol --help):",
    ]
    width = shutil.get_terminal_size().columns
    for group, known in GROUPS.items():
        entry = f"  {group}={choices[group]:<{24 - len(group)}}"
        wrapped = textwrap.wrap(" | ".join(known), max(width - len(entry), 40))
        lines += [entry + wrapped[0], *(" " * len(entry) + line for line in wrapped[1:])]
    lines += ["", "Options, with the allowed values; a round bracket leaves its end of the range out:"]
    column = 40
    for key, option in options.items():
        entry = f"  {key}={typed(values[key])}"
        meaning = textwrap.wrap(f"{option.allowed}  {option.meaning}".strip(), max(width - column, 40))
        if len(entry) < column - 1:
            meaning[0] = entry.ljust(column) + meaning[0]
        else:
            meaning[:0] = [entry]
        lines += [meaning[0], *(" " * column + line for line in meaning[1:])]
    return "\n".join(lines)
