"""python -m ssl_bench: see ``--help``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ssl_bench.config import command_line
from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.training import preflight

if TYPE_CHECKING:  # not needed for the help, nor to answer a mistake
    from ssl_bench.results.record import Record


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the command line, and only then import what takes seconds."""
    return command_line.main(
        train, arguments, check=preflight.check, value=validation_accuracy, show=show, conclude=conclude
    )


def train(config: Config) -> Record:
    """One run; returns its record."""
    from ssl_bench.training import launch

    return launch.train(config)


def validation_accuracy(record: Record) -> float:
    """Percent of the monitor's protocol on validation images after the last epoch, by which sweepers choose.

    Raises:
        UserError: the run has held none out.
    """
    percent = record.last_on_validation
    if percent is None:
        raise UserError(f"hydra/sweeper chooses by validation images, and scale={record.scale} holds none out.")
    return percent


def show(record: Record, tuning: bool) -> None:
    """The table of one run, unless validation images are to choose among it and others."""
    if not _withheld(record, tuning):
        from ssl_bench.report.tables import print_table, run_table

        print_table(run_table(record))


def conclude(outcomes: list[tuple[list[str], Any]], tuning: bool) -> None:
    """All runs of ``-m`` in one table; one alone has its own, if it was not shown."""
    from ssl_bench.report.tables import joint_table, print_table, run_table

    records = [record for _, record in outcomes]
    if len(records) > 1:
        print_table(joint_table(records, [options for options, _ in outcomes], tuning=tuning))
    elif records and _withheld(records[0], tuning):
        print_table(run_table(records[0]))


def _withheld(record: Record, tuning: bool) -> bool:
    """Whether test figures wait for validation images to choose."""
    return tuning and record.last_on_validation is not None
