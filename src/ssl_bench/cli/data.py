"""python -m ssl_bench data: see ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ssl_bench.conditions import require_root
from ssl_bench.config.compose import compose
from ssl_bench.config.options import GROUPS, near_or_all, options_in, read_settings, require_known, settings_text
from ssl_bench.config.schema import Config
from ssl_bench.entry import answer
from ssl_bench.errors import UserError

OPTIONS = "data.yaml"

Settings = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the options, then do the command; 0 if all is well, 1 if `verify` finds fault, 2 for an error."""

    def work(words: list[str]) -> int:
        command, config, settings = read(words)
        return COMMANDS[command][0](config, settings)

    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    return answer(words, help_text, work, interrupted="interrupted; the same command resumes.")


def read(words: Sequence[str]) -> tuple[str, Config, Settings]:
    """The command, the configuration that the words give, and the options of this program alone."""
    command, *rest = words
    if "=" in command:
        raise UserError(f"{command} needs a command before it: one of {', '.join(COMMANDS)}.")
    if command not in COMMANDS:
        raise UserError(f"command {command} is unknown{near_or_all(command, COMMANDS)}")
    own = [word for word in rest if word.partition("=")[0] in options_in(OPTIONS)]
    others = [word for word in rest if word not in own]
    require_known(others, options_in(OPTIONS))
    config = compose(others)
    if command != "list":
        require_root(config.dataset.name, config.dataset.options.get("root", ""))
    return command, config, read_settings(OPTIONS, own)


def help_text() -> str:
    """Usage, commands, options."""
    lines = ["python -m ssl_bench data command [key=value ...]", "", "Commands:"]
    lines += [f"  {name:<10}{meaning}" for name, (_, meaning) in COMMANDS.items()]
    lines += [
        "",
        "Options are those of python -m ssl_bench, such as dataset=, data_dir=, dataset.root=, augment= and scale=;",
        "python -m ssl_bench --help lists them. In addition:",
    ]
    return "\n".join([*lines, *settings_text(OPTIONS)])


# -- what each does; PyTorch takes seconds, and a mistake is answered before -----------------------


def list_datasets(config: Config, settings: Settings) -> int:
    """Every dataset, and what of it is on disk."""
    from ssl_bench.data import inventory

    return inventory.list_datasets(config, GROUPS["dataset"])


def prepare(config: Config, settings: Settings) -> int:
    """Fetch what is missing, read it once, and show what it is."""
    from ssl_bench.data import inventory

    return inventory.prepare(config)


def pack(config: Config, settings: Settings) -> int:
    """Pack a dataset of single pictures into one file."""
    from ssl_bench.data import inventory

    return inventory.pack(config)


def verify(config: Config, settings: Settings) -> int:
    """Read everything again and compare it with what is known; 1 if something is wrong."""
    from ssl_bench.data import inventory

    return inventory.verify(config)


def show(config: Config, settings: Settings) -> int:
    """Draw images and the views that training will draw of them."""
    path = Path(settings["out"] or Path(config.runs_dir, f"show-{config.dataset.name}.png"))
    if path.suffix != ".png":
        raise UserError(f"out={path} is no picture's name: end it in .png.")
    from ssl_bench.training.show import show as draw

    print(draw(config, path, images=settings["images"], views=settings["views"]))
    return 0


def table(config: Config, settings: Settings) -> int:
    """Table 1, printed or written."""
    from ssl_bench.report import datasets

    if settings["out"]:
        datasets.write(Path(settings["out"]))
        print(f"{settings['out']} holds {', '.join(datasets.files())}.")
    else:
        print(datasets.markdown(datasets.table1()), end="")
    return 0


COMMANDS: dict[str, tuple[Callable[[Config, Settings], int], str]] = {
    "list": (list_datasets, "what there is, and what of it is on disk"),
    "prepare": (prepare, "download a dataset if need be, read it once, show what was found"),
    "pack": (pack, "pack a folder of pictures, or ImageNet-100, into one file that need not fit into memory"),
    "verify": (verify, "read a dataset again and check all that is known of it; status 1 if something is wrong"),
    "show": (show, "draw images and their views as training draws them, into a picture"),
    "table": (table, "the table of datasets, out of the catalog, as Markdown, CSV and LaTeX"),
}
