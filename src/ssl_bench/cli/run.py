"""python -m ssl_bench: see ``--help``."""

from __future__ import annotations

from collections.abc import Sequence

from ssl_bench.config import compose
from ssl_bench.config.schema import Config
from ssl_bench.training import launch, preflight


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the command line, and only then import what takes seconds."""

    def task(settings: Config) -> None:
        if launch.needed(settings):
            launch.launch(settings)
            return
        from ssl_bench.training.run import run

        run(settings)

    return compose.main(task, arguments, check=preflight.check)
