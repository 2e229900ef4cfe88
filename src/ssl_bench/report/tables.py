"""Tables of accuracies."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ssl_bench.config.definitions import BASELINES
from ssl_bench.config.options import typed
from ssl_bench.config.parse import COMPARED, by_key, tuned_options, varying
from ssl_bench.report.palette import label
from ssl_bench.results.record import PROJECTOR, Record

Values = tuple[str | None, ...]  # of some options of a run, in their order; None: not set

# The order in which networks of a run stand in a table: what was trained, then what it is measured against.
NETWORKS = ("teacher", "student", PROJECTOR, "random", "pixels")
ENCODER = "encoder"  # of an evaluation, whose results stand in the order of layers
NAMES = dict(zip(("random", "pixels"), BASELINES, strict=True))


def run_table(record: Record) -> Table:
    """One run: networks as rows, protocols as columns, percent on test images."""
    table = accuracy_table(label(record.method), record, bold=record.evaluated)
    table.caption = network_note(record.config)
    return table


def network_note(config: Mapping[str, Any]) -> str | None:
    """A backbone of timm's with its arguments and the rule of its steps; None for a ResNet. config: as in a record."""
    backbone, optimizer = config["backbone"], config["optimizer"]
    if not str(backbone["name"]).startswith("timm/"):
        return None
    warmup = f", warm-up over {optimizer['warmup']:.0%} of the steps" if optimizer["warmup"] else ""
    return f"{with_arguments(backbone)}, {optimizer['name']} with lr {optimizer['lr']:g}{warmup}"


def with_arguments(network: Mapping[str, Any]) -> str:
    """A network's name, and in brackets the arguments of its constructor where it is timm's and has some."""
    arguments = ", ".join(f"{name} {typed(value)}" for name, value in (network.get("arguments") or {}).items())
    return f"{network['name']} ({arguments})" if arguments else str(network["name"])


def accuracy_table(name: str, record: Record, *, bold: str) -> Table:
    """The results that ``record`` holds of what is called ``name``; ``bold`` is the network that it is about."""
    results, versions = record.results, record.protocols
    table = Table(title=f"{name} on {record.dataset}, scale {record.scale}, seed {record.seed}: % of test images")
    table.add_column("")
    protocols = list(dict.fromkeys(name for scores in results.values() for name in scores))
    for name in protocols:
        table.add_column(f"{name} v{versions[name]}", justify="right", overflow="fold")
    for network in _networks(record):
        cells = [_percent(results[network].get(name)) for name in protocols]
        table.add_row(NAMES.get(network, network), *cells, style="bold" if network == bold else None)
    return table


def print_table(table: Table) -> None:
    """Print what all ranks of a run know; rank 0 of several does."""
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    Console(quiet=not alone and os.environ.get("RANK", "0") != "0").print(table)


def transfer_table(name: str, records: Mapping[str, Record]) -> Table:
    """One encoder on several datasets: for each the encoder, random weights and raw pixels. records: by dataset."""
    versions = {protocol: version for record in records.values() for protocol, version in record.protocols.items()}
    table = Table(title=f"{name} on {len(records)} datasets: % of test images")
    for heading in ("dataset", ""):
        table.add_column(heading, overflow="fold")
    for protocol, version in versions.items():
        table.add_column(f"{protocol} v{version}", justify="right", overflow="fold")
    for dataset, record in records.items():
        for number, network in enumerate(_networks(record)):
            scores = record.results[network]
            cells = [_percent(scores.get(protocol)) for protocol in versions]
            row = [dataset if number == 0 else "", NAMES.get(network, network), *cells]
            table.add_row(*row, style="bold" if network == ENCODER else None, end_section=network == "pixels")
    return table


def joint_table(records: Sequence[Record], options: Sequence[Sequence[str]], *, tuning: bool = True) -> Table:
    """Several runs, a row each: the options in which they differ, then percent of the deployed network on test images.

    options: the ``key=value`` of each run, in the order of ``records``. The monitor's accuracy on validation images
    after the last epoch stands before the protocols, where a run has held images out. tuning: where runs of one method,
    dataset and scale differ by more than their seed, validation ranks them, and test is shown of the best alone.
    """
    chosen = [by_key(given) for given in options]
    keys = varying(options)
    protocols = list(dict.fromkeys(name for one in records for name in one.results[one.evaluated]))
    ranked = _ranked(records, chosen, tuned_options(options) if tuning else [])
    best = " of the best on validation images, which rank them" if ranked else ""
    table = Table(title=f"{len(records)} runs: % of test images{best}")
    for key in keys:
        table.add_column(key, overflow="fold")
    for name in ("validation", *protocols):
        table.add_column(name, justify="right", overflow="fold")
    for number, is_best in ranked or [(number, True) for number in range(len(records))]:
        one, record = chosen[number], records[number]
        scores = record.results[record.evaluated]
        figures = [_percent(scores.get(name)) if is_best else "" for name in protocols]
        table.add_row(*(one.get(key, "") for key in keys), _percent(record.last_on_validation), *figures)
    return table


def _ranked(
    records: Sequence[Record], chosen: Sequence[Mapping[str, str]], keys: Sequence[str]
) -> list[tuple[int, bool]]:
    """Positions of the runs, best on validation first, and whether each has its group's best values of the ``keys``.

    Seeds of one setting are ranked by their mean. Empty where nothing is tuned, or a run has no validation images.
    """
    if not keys or any(record.last_on_validation is None for record in records):
        return []
    groups: dict[Values, dict[Values, list[int]]] = {}  # of positions, by what is compared and by what is tuned
    for number, one in enumerate(chosen):
        group, setting = (tuple(map(one.get, names)) for names in (COMPARED, keys))
        groups.setdefault(group, {}).setdefault(setting, []).append(number)

    def mean(numbers: Sequence[int]) -> float:
        return statistics.fmean(records[number].last_on_validation or 0.0 for number in numbers)

    found = []
    for settings in groups.values():
        for rank, numbers in enumerate(sorted(settings.values(), key=mean, reverse=True)):
            found += [(number, rank == 0) for number in numbers]
    return found


def _networks(record: Record) -> list[str]:
    """Those that have results, as they stand in a table."""
    return list(record.results) if ENCODER in record.results else [n for n in NETWORKS if n in record.results]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
