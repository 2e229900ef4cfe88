"""The accuracy that a run of each method should have: ``expected_<dataset>.csv``, made from committed records.

A range is the mean over seeds ± 4 standard deviations s. Few seeds give a poor s, so that the median s of all methods
takes its place where that is larger.
"""

from __future__ import annotations

import csv
import functools
import itertools
import shlex
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

from ssl_bench.report.comparison import Table, TableCell, by_row
from ssl_bench.report.provenance import provenance
from ssl_bench.report.records import Run

FILES = ("expected_digits.csv", "expected_cifar10.csv")
WIDTH = 4.0  # standard deviations on either side


@dataclass(frozen=True)
class Expected:
    """What runs of one method have had under one protocol, in percent of test images."""

    method: str
    dataset: str
    options: str  # of the run, besides the seed
    protocol: str
    version: int  # of the protocol
    seeds: int
    mean: float
    deviation: float  # s
    seed0: float | None  # what the run of seed 0 had, if any; a machine of the same kind repeats it digit by digit
    precision: str
    threads: int
    torch: str

    @property
    def low(self) -> float:
        return max(0.0, self.mean - WIDTH * self.deviation)

    @property
    def high(self) -> float:
        return min(100.0, self.mean + WIDTH * self.deviation)


COLUMNS = [field.name for field in fields(Expected)]


@functools.cache
def ranges() -> tuple[Expected, ...]:
    """All that are shipped, those of digits first."""
    folder = resources.files("ssl_bench.report")
    rows = (row for file in FILES for row in csv.DictReader((folder / file).read_text(encoding="utf-8").splitlines()))
    numbers: dict[str, Callable[[str], Any]] = {"version": int, "seeds": int, "threads": int}
    numbers |= {"mean": float, "deviation": float, "seed0": lambda text: float(text) if text else None}
    return tuple(Expected(**{key: numbers.get(key, str)(value) for key, value in row.items()}) for row in rows)


def of_runs(runs: Sequence[Run], protocols: Sequence[str]) -> Iterator[Expected]:
    """A range for every row with two records or more, by dataset and protocol."""
    datasets = dict.fromkeys(run.cell.dataset for run in runs)
    for dataset, protocol in itertools.product(datasets, protocols):
        here = [run for run in runs if run.cell.dataset == dataset]
        found = {row: scores for row, scores in by_row(here, protocol).items() if len(scores) > 1}
        deviations = [statistics.stdev(scores.values()) for scores in found.values()]
        for row, scores in found.items():
            run, record = next((run, run.record) for run in here if run.cell.row == row and run.record)
            yield Expected(
                method=record.method,
                dataset=record.dataset,
                options=shlex.join(override for override in run.cell.overrides if not override.startswith("seed=")),
                protocol=protocol,
                version=record.protocols[protocol],
                seeds=len(scores),
                mean=round(statistics.fmean(scores.values()), 4),
                deviation=round(max(statistics.stdev(scores.values()), statistics.median(deviations)), 4),
                seed0=None if 0 not in scores else round(scores[0], 4),
                precision=record.precision,
                threads=record.environment["threads"],
                torch=record.environment["libraries"]["torch"],
            )


def table(title: str, runs: Sequence[Run], protocols: Sequence[str]) -> Table:
    """The range of every row under each protocol; a row is its method, with its options where that is not enough."""
    ranges = list(of_runs(runs, protocols))
    alone = len({one.options for one in ranges}) == len({one.method for one in ranges})
    found = {(one.method if alone else one.options, one.protocol): one for one in ranges}
    return Table(
        title=title,
        columns=list(protocols),
        ranked={
            row: [
                TableCell(f"{one.low:.1f} to {one.high:.1f}" if (one := found.get((row, name))) else "–")
                for name in protocols
            ]
            for row in dict.fromkeys(row for row, _ in found)
        },
        notes=[
            f"% of test images: mean ± {WIDTH:g} standard deviations over seeds, or ± {WIDTH:g} times the median "
            "standard deviation of all methods where that is larger.",
            *provenance(runs),
        ],
    )
