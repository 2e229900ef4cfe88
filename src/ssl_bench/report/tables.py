"""Tables of accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

# The order in which networks stand in a table: what was trained, then what it is measured against.
NETWORKS = ("teacher", "student", "random", "pixels")
NAMES = {"random": "random weights", "pixels": "raw pixels"}


def run_table(record: Mapping[str, Any]) -> Table:
    """One run: networks as rows, protocols as columns, percent on test images."""
    results: Mapping[str, Mapping[str, float | None]] = record["results"]
    versions: Mapping[str, int] = record["protocols"]
    table = Table(
        title=f"{record['method']} on {record['dataset']}, scale {record['scale']}, seed {record['seed']}: "
        "% of test images"
    )
    table.add_column("")
    protocols = list(dict.fromkeys(name for scores in results.values() for name in scores))
    for name in protocols:
        table.add_column(f"{name} v{versions[name]}", justify="right")
    evaluated = record["evaluated"]
    for network in (n for n in NETWORKS if n in results):
        cells = [_percent(results[network].get(name)) for name in protocols]
        table.add_row(NAMES.get(network, network), *cells, style="bold" if network == evaluated else None)
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
