"""Tables of accuracies."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ssl_bench.report.palette import label
from ssl_bench.results.record import Record

# The order in which networks stand in a table: what was trained, then what it is measured against.
NETWORKS = ("encoder", "teacher", "student", "random", "pixels")
NAMES = {"random": "random weights", "pixels": "raw pixels"}


def run_table(record: Record) -> Table:
    """One run: networks as rows, protocols as columns, percent on test images."""
    return accuracy_table(label(record.method), record, bold=record.evaluated)


def accuracy_table(name: str, record: Record, *, bold: str) -> Table:
    """The results that ``record`` holds of what is called ``name``; ``bold`` is the network that it is about."""
    results, versions = record.results, record.protocols
    table = Table(title=f"{name} on {record.dataset}, scale {record.scale}, seed {record.seed}: % of test images")
    table.add_column("")
    protocols = list(dict.fromkeys(name for scores in results.values() for name in scores))
    for name in protocols:
        table.add_column(f"{name} v{versions[name]}", justify="right")
    for network in (n for n in NETWORKS if n in results):
        cells = [_percent(results[network].get(name)) for name in protocols]
        table.add_row(NAMES.get(network, network), *cells, style="bold" if network == bold else None)
    return table


def joint_table(records: Sequence[Record], options: Sequence[Sequence[str]]) -> Table:
    """Several runs, a row each: the options in which they differ, then percent of the deployed network on test images.

    options: the ``key=value`` of each run, in the order of ``records``. The monitor's accuracy on validation images
    after the last epoch stands before the protocols, where a run has held images out.
    """
    chosen = [dict(option.lstrip("+").partition("=")[::2] for option in given) for given in options]
    keys = [key for key in dict.fromkeys(key for one in chosen for key in one) if len({o.get(key) for o in chosen}) > 1]
    protocols = list(dict.fromkeys(name for one in records for name in one.results[one.evaluated]))
    table = Table(title=f"{len(records)} runs: % of test images")
    for key in keys:
        table.add_column(key)
    for name in ("validation", *protocols):
        table.add_column(name, justify="right")
    for one, record in zip(chosen, records, strict=True):
        scores = record.results[record.evaluated]
        figures = [record.last_on_validation, *(scores.get(name) for name in protocols)]
        table.add_row(*(one.get(key, "") for key in keys), *map(_percent, figures))
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
