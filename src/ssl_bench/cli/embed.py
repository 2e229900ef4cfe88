"""python -m ssl_bench embed: features of every picture below a folder.

RUN_OR_FILE is what python -m ssl_bench evaluate takes. Two files are written, whole or not at all: float32 features
[M, F] as .npy, and the names of the M pictures below FOLDER as .txt, one per line in the same order. Every picture is
seen at its own size and shape as in evaluation: the shorter side resized, the centre cut out. They are read as they are
needed, so a folder may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssl_bench.config.settings import positional, read_settings, settings_text
from ssl_bench.entry import importing, run_command
from ssl_bench.errors import UserError

FILE = "embed.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the arguments, then embed; returns the exit status."""

    def work(arguments: list[str]) -> None:
        (encoder, folder), rest = positional(arguments, "a run's folder or a file of weights", "a folder of pictures")
        settings, paths = read_settings(FILE, rest), (Path(encoder), Path(folder))
        if Path(settings["out"]).suffix != ".npy":
            raise UserError(f"out={settings['out']} must end in .npy.")
        for path in paths:
            if not path.exists():
                raise UserError(f"{path} does not exist: give a run's folder or a file of weights, then a folder.")
        with importing():
            from ssl_bench.encoders.embed import embed  # PyTorch takes seconds, a mistake is answered before

        embed(*paths, settings)

    return run_command(arguments, help_text, work, interrupted="interrupted; nothing was written.")


def help_text() -> str:
    """Usage, what it does, options."""
    lines = ["python -m ssl_bench embed RUN_OR_FILE FOLDER [key=value ...]", "", str(__doc__).partition("\n\n")[2]]
    return "\n".join([*lines, "Options, with the allowed values:", *settings_text(FILE)])
