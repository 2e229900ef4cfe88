"""python -m ssl_bench runs: the finished runs of a store.

Without conditions all are listed. A condition compares a figure or an option of the runs with a value. The start of a
fingerprint names a run. Runs are shown for which all conditions hold; if runs are named, only those:

  python -m ssl_bench runs method=byol "knn1>80" sort=-knn1
  python -m ssl_bench runs dataset=cifar10 optimizer.lr=0.3 "epochs>=20"
  python -m ssl_bench runs 0657bd 238775 compare=true

Comparisons are =, !=, <, <=, > and >= (in quotes: the shell reads < and >). Figures are: a protocol, as knn1, on test
images with the network that the method deploys; <network>/<protocol>, as student/knn1; validation, the monitor's
accuracy on validation images after the last epoch. The table has the options in which runs of one method, dataset and
scale differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssl_bench.config.options import nearest
from ssl_bench.config.settings import options_in, read_settings, settings_text
from ssl_bench.entry import run_command
from ssl_bench.errors import UserError

FILE = "runs.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the arguments, then read the store and print; returns the exit status."""

    def work(arguments: list[str]) -> None:
        from ssl_bench.report import runs

        known = options_in(FILE)
        own = [argument for argument in arguments if argument.partition("=")[0] in known]
        settings = read_settings(FILE, own)
        conditions = [runs.condition(argument) for argument in arguments if argument not in own]
        for given in conditions:
            near = nearest(given.key, known)
            if near and given.key not in runs.FIRST and "." not in given.key:
                raise UserError(f"option {given.key} is unknown{near}")
        runs.show(Path(settings.pop("runs_dir")), conditions, **settings)

    return run_command(arguments, help_text, work)


def help_text() -> str:
    """Usage, what it does, options."""
    usage = "python -m ssl_bench runs [CONDITION or FINGERPRINT ...] [key=value ...]"
    return "\n".join([usage, "", str(__doc__).partition("\n\n")[2], "Options:", *settings_text(FILE)])
