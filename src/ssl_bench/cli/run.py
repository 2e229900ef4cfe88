"""python -m ssl_bench: see ``--help``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ssl_bench.config import command_line
from ssl_bench.config.schema import Config
from ssl_bench.entry import importing
from ssl_bench.errors import UserError
from ssl_bench.training import preflight

if TYPE_CHECKING:  # not needed for the help, nor to answer a mistake
    from ssl_bench.results.record import Record


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the command line, and only then import what takes seconds."""
    return command_line.main(
        train, arguments, check=preflight.check, value=validation_accuracy, show=show, conclude=print_joint_table
    )


def train(config: Config) -> Record:
    """One run, in as many processes as it asks for; returns its record."""
    from ssl_bench.training import launch

    if launch.needed(config):
        return launch.launch(config)
    with importing():
        from ssl_bench.training.run import run

    return run(config)


def show(record: Record) -> None:
    """The table of one run."""
    from ssl_bench.report.tables import print_run

    print_run(record)


def validation_accuracy(record: Record) -> float:
    """Percent of the monitor's protocol on validation images after the last epoch, by which sweepers choose.

    Raises:
        UserError: the run has held none out.
    """
    percent = record.last_on_validation
    if percent is None:
        raise UserError(f"hydra/sweeper chooses by validation images, which scale={record.scale} holds none out of.")
    return percent


def print_joint_table(outcomes: list[tuple[list[str], Any]]) -> None:
    """All runs of ``-m`` in one table, where there are several."""
    if len(outcomes) < 2:
        return
    from rich.console import Console

    from ssl_bench.report.tables import joint_table

    Console().print(joint_table([record for _, record in outcomes], [options for options, _ in outcomes]))
