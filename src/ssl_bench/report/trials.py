"""Trials: what each run sets, its accuracy on validation images, by which settings are chosen, and its cost."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterator, Sequence

from ssl_bench.report.comparison import Table, TableCell, figure
from ssl_bench.report.provenance import command, provenance
from ssl_bench.report.records import Run

WHERE = ("dataset", "row", "options", "seed", "network")
COSTS = ("epochs", "student_steps", "train_seconds", "core_seconds", "fingerprint", "command")


def heading(protocols: Sequence[str]) -> list[str]:
    """The columns of `results`."""
    return [*WHERE, *(f"{split}_{name}" for split in ("validation", "test") for name in protocols), *COSTS]


def results(runs: Sequence[Run], protocols: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """A line for every finished run, of the network that its method deploys, in percent after the last epoch."""
    for run in runs:
        if record := run.record:
            options = shlex.join(
                override for override in run.cell.overrides if not override.startswith(("dataset=", "seed=", "scale="))
            )
            yield (
                *(run.cell.dataset, run.cell.row, options, run.cell.seed, record.evaluated),
                *(record.on_validation(name) for name in protocols),
                *(run.percents(name) for name in protocols),
                *(run.config.epochs, record.student_steps, record.train_seconds, record.core_seconds),
                *(record.fingerprint, command(run)),
            )


def table(title: str, runs: Sequence[Run], protocols: Sequence[str]) -> Table:
    """The rows of each dataset, the highest on validation images under the first protocol first."""
    rows: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        rows.setdefault((run.cell.dataset, run.cell.row), []).append(run)
    scores = {row: [_by_seed(of_row, name) for name in protocols] for row, of_row in rows.items()}
    ordered = sorted(rows, key=lambda row: (row[0], -statistics.fmean([*scores[row][0].values()] or [0.0])))
    return Table(
        title=title,
        columns=[*protocols, "core minutes"],
        ranked={
            f"{dataset}, {row}": [
                *(TableCell(figure(by_seed, wanted=len(rows[dataset, row]))) for by_seed in scores[dataset, row]),
                TableCell(_minutes(rows[dataset, row])),
            ]
            for dataset, row in ordered
        },
        notes=["% of validation images after the last epoch.", *provenance(runs)],
    )


def _by_seed(runs: Sequence[Run], protocol: str) -> dict[int, float]:
    found = {run.cell.seed: run.record.on_validation(protocol) for run in runs if run.record}
    return {seed: percent for seed, percent in found.items() if percent is not None}


def _minutes(runs: Sequence[Run]) -> str:
    """Of training on one core, the mean over seeds."""
    spent = [run.record.core_seconds for run in runs if run.record and run.record.core_seconds]
    return f"{statistics.fmean(spent) / 60:.1f}" if spent else "–"
