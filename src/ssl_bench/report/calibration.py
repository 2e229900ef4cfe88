"""How often a method differs from itself by the tables' test, counted on real runs that differ in their seed alone."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ssl_bench.report.comparison import Table, TableCell, epochs
from ssl_bench.report.provenance import provenance
from ssl_bench.report.records import Run
from ssl_bench.report.statistics import ALPHA, false_positives, smallest_step

GROUPS = (3, 5)  # seeds of a row
ROWS = (2, 9)  # of a column; nine of five are as many as 48 runs give


def note(file: Path) -> str:
    """One line for the foot of a table, from the committed accuracies in ``file``."""
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        by_protocol: dict[str, list[float]] = {}
        for row in rows:
            by_protocol.setdefault(row["protocol"], []).append(float(row["percent"]))
        rates = []
        for n in GROUPS:
            found = {
                name: [false_positives(percents, n, rows=count, step=smallest_step(percents)) for count in ROWS]
                for name, percents in by_protocol.items()
            }
            each = (f"{name} {pair:.1%} and {column:.1%}" for name, ((pair, _), (_, column)) in found.items())
            rates.append(f"n = {n}: {', '.join(each)}")
        scale = next(word for word in rows[0]["command"].split() if word.startswith("scale=")).partition("=")[2]
        where = f"{rows[0]['row']} on {rows[0]['dataset']} at scale {scale}, {len({row['seed'] for row in rows})} runs"
    except FileNotFoundError:
        return f"A/A calibration: not measured ({file} is missing)."
    except (OSError, ValueError, LookupError, TypeError, StopIteration, csv.Error) as error:
        return f"A/A calibration: {file} cannot be read ({error})."
    return (
        f"A/A calibration, how often a method differs significantly from itself with other seeds, in pairs and "
        f"anywhere in a column of {ROWS[-1]} rows: {'; '.join(rates)} ({where}; {ALPHA:.0%} are allowed; columns have "
        "more, since the best row is picked by the figures that are tested)."
    )


def table(title: str, runs: Sequence[Run], protocols: Sequence[str]) -> Table:
    """Rates by number of rows and seeds, for every protocol."""
    rows: dict[str, list[TableCell]] = {}
    values = {name: [p for run in runs if (p := run.percents(name)) is not None] for name in protocols}
    for count in ROWS:
        for n in GROUPS:
            rates: list[float | None] = []
            for name in protocols:
                enough, step = count * n <= len(values[name]), smallest_step(values[name])
                rates += false_positives(values[name], n, rows=count, step=step) if enough else (None, None)
            rows[f"{count} rows of n = {n}"] = [TableCell("–" if rate is None else f"{rate:.1%}") for rate in rates]
    there = sum(run.record is not None for run in runs)
    return Table(
        title=title,
        columns=[
            f"{name}, {what}" for name in protocols for what in ("rows that differ from the best", "columns with one")
        ],
        ranked=rows,
        notes=[
            f"Rows of equal runs, dealt at random from {there} that differ in their seed alone, compared as a table "
            f"compares methods (α = {ALPHA:g}): every row that differs from the best one is an error.",
            f"{runs[0].cell.row} at scale {runs[0].config.scale.name}; {epochs(runs)}.",
            *provenance(runs),
        ],
    )
