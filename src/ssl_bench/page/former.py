"""Runs of an experiment as it was: those that the results beside its README name, while none of today's is among them.

A verdict is of the runs that it was written about. When the definition of an experiment changes, they stay behind it
until the results are of new ones, or one's own runs are there.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ssl_bench.config.axes import Position
from ssl_bench.config.experiments import Experiment
from ssl_bench.page.runs import alone
from ssl_bench.report.records import Run, StoredRecord, refuse_mixtures

RESULTS = "results.csv"


def named(folder: Path) -> list[tuple[Position, str]]:
    """Position and fingerprint of every run in ``results.csv`` of the folder; none where it is no file of results."""
    try:
        lines = list(csv.DictReader((folder / RESULTS).read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    found = [
        (Position(row, line.get("column") or "", line.get("accounting") or ""), fingerprint)
        for line in lines
        if (row := line.get("row")) and (fingerprint := line.get("fingerprint"))
    ]
    return list(dict.fromkeys(found))


def stand(wanted: Collection[tuple[Position, str]], today: Sequence[Run]) -> bool:
    """Whether the runs that the results name are shown: no run of ``today`` is one's own, or one of these."""
    fingerprints = {fingerprint for _, fingerprint in wanted}
    there = [run.entry for run in today if run.entry]
    return all(entry.committed and entry.record.fingerprint not in fingerprints for entry in there)


def runs(wanted: Collection[tuple[Position, str]], entries: Mapping[str, StoredRecord]) -> list[Run]:
    """Those whose records are among ``entries``, by fingerprint, as rows of the results.

    Raises:
        UserError: records cannot stand together.
    """
    found = [
        replace(run, cell=replace(run.cell, row=position.label, position=position))
        for position, fingerprint in wanted
        if (entry := entries.get(fingerprint)) is not None and (run := alone(entry)) is not None
    ]
    refuse_mixtures([(run.cell, run.entry) for run in found if run.entry])
    return found


def as_it_was(experiment: Experiment, found: Sequence[Run]) -> Experiment:
    """``experiment`` with the rows of the runs that were ``found``, in its own order as far as it has them."""
    own = {run.cell.position.row: run.cell.overrides for run in found}
    rows = {row: overrides for row, overrides in experiment.rows.items() if row in own} | own
    ranked = experiment.show.get("ranked")
    show = experiment.show if ranked is None else {**experiment.show, "ranked": [row for row in ranked if row in rows]}
    return replace(experiment, rows=rows, show=show)


def note(found: Sequence[Run], wanted: int, today: Sequence[Run]) -> str:
    """What stands below the table of the runs that were found of those ``wanted``."""
    here = sum(run.record is not None for run in today)
    which = "the" if len(found) == wanted else f"{len(found)} of the"
    return (
        f"These are {which} {wanted} runs that the results of its folder name, made before its definition changed. "
        f"Of the {len(today)} that it asks for now, {here or 'none'} {'are' if here > 1 else 'is'} here."
    )
