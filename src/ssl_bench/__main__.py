"""python -m ssl_bench [COMMAND] key=value …, which is also installed as ssl-bench; see ``--help``."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence

from ssl_bench.commands import COMMANDS, RUN
from ssl_bench.entry import print_error
from ssl_bench.errors import SIGNALLED, UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the arguments to the command that the first one names; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given.pop(0) if given and given[0] in COMMANDS else RUN
    try:
        module = importlib.import_module(f"ssl_bench.cli.{command}")
    except UserError as error:  # of a user's own folder of configurations
        return print_error(error)
    except KeyboardInterrupt:
        return print_error(UserError("interrupted.", SIGNALLED + signal.SIGINT))
    status: int = module.main(given)
    return status


if __name__ == "__main__":
    sys.exit(main())
