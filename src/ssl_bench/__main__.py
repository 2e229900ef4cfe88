"""python -m ssl_bench: see ``--help``."""

from __future__ import annotations

import sys

from ssl_bench import config, launch, preflight


def main() -> int:
    """Check the command line, and only then import what takes seconds."""

    def task(settings: config.Config) -> None:
        if launch.needed(settings):
            launch.launch(settings)
            return
        from ssl_bench.run import run

        run(settings)

    return config.main(task, check=preflight.check)


if __name__ == "__main__":
    sys.exit(main())
