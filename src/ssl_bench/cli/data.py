"""python -m ssl_bench data: see ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_bench.config.compose import compose
from ssl_bench.config.schema import Config
from ssl_bench.config.settings import near_or_all, settings_text, split_options
from ssl_bench.data.facts import require_root
from ssl_bench.entry import run_command
from ssl_bench.errors import UserError

FILE = "data.yaml"
COMMANDS = {
    "list": "what there is, and what of it is on disk",
    "prepare": "download a dataset if need be, read it once, show what was found",
    "pack": "pack a folder of pictures, or ImageNet-100, into one file that need not fit into memory",
    "verify": "read a dataset again and check all that is known of it; status 1 if something is wrong",
    "show": "draw images and their views as training draws them, into a picture",
    "table": "the table of datasets, out of the catalog, as Markdown, CSV and LaTeX",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the options, then do the command; 0 if all is well, 1 if `verify` finds fault, 2 for an error."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    return run_command(
        given, help_text, lambda given: run(*read(given)), interrupted="interrupted; the same command resumes."
    )


def read(arguments: Sequence[str]) -> tuple[str, Config, dict[str, Any]]:
    """The command, the configuration that the options give, and the options of this program alone."""
    command, *options = arguments
    if "=" in command:
        raise UserError(f"{command} needs a command before it: one of {', '.join(COMMANDS)}.")
    if command not in COMMANDS:
        raise UserError(f"command {command} is unknown{near_or_all(command, COMMANDS)}")
    settings, others = split_options(FILE, options)
    config = compose(others)
    if command != "list":
        require_root(config.dataset.name, config.dataset.options)
    return command, config, settings


def help_text() -> str:
    """Usage, commands, options."""
    lines = ["python -m ssl_bench data command [key=value ...]", "", "Commands:"]
    lines += [f"  {name:<10}{meaning}" for name, meaning in COMMANDS.items()]
    lines += [
        "",
        "Options are those of python -m ssl_bench, such as dataset=, data_dir=, dataset.root=, augment= and scale=;",
        "python -m ssl_bench --help lists them. In addition:",
    ]
    return "\n".join([*lines, *settings_text(FILE)])


def run(command: str, config: Config, settings: dict[str, Any]) -> int:
    """Do the command; PyTorch takes seconds, and a mistake is answered before."""
    if command == "table":
        return _table(settings["out"])
    if command == "show":
        return _show(config, settings)
    from ssl_bench.data import inventory

    return inventory.COMMANDS[command](config)


def _show(config: Config, settings: dict[str, Any]) -> int:
    path = Path(settings["out"] or Path(config.runs_dir, f"show-{config.dataset.name}.png"))
    if path.suffix != ".png":
        raise UserError(f"out={path} must end in .png.")
    from ssl_bench.training.show import show as draw

    print(draw(config, path, images=settings["images"], views=settings["views"]))
    return 0


def _table(out: str | None) -> int:
    from ssl_bench.report import datasets

    if out:
        datasets.write(Path(out))
        print(f"{out} holds {', '.join(datasets.files())}.")
    else:
        print(datasets.markdown(datasets.table1()), end="")
    return 0
