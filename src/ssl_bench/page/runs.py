"""Every run by itself: a line for the list, the whole for those who open it, and the command that makes it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ssl_bench.config.compose import compose, views_of
from ssl_bench.config.defaults import leaves
from ssl_bench.config.experiments import Cell
from ssl_bench.config.options import is_open, typed
from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.report.palette import label
from ssl_bench.report.provenance import codes, command, counts
from ssl_bench.report.records import Run, StoredRecord
from ssl_bench.results.record import Record

Plain = dict[str, Any]
CHOSEN = ("method", "dataset", "scale")  # groups of conf/ that a record names
GROUPED = (*CHOSEN, "seed")  # stand in front of a command
FIELDS = (
    *("run", "method", "dataset", "scale", "seed", "network", "epochs", "batch", "backbone", "seconds"),
    *("core_seconds", "images", "code", "committed"),
)


def of_store(entries: Iterable[Sequence[StoredRecord]]) -> list[StoredRecord]:
    """Every run once; one's own stands for a committed record of the same name."""
    found: dict[str, StoredRecord] = {}
    for alike in entries:
        for entry in alike:
            if entry.record.fingerprint not in found or not entry.committed:
                found[entry.record.fingerprint] = entry
    return list(found.values())


def line(entry: StoredRecord, protocols: Sequence[str]) -> list[Any]:
    """What FIELDS name, then the accuracy of the deployed network under each protocol."""
    record, config = entry.record, entry.record.config
    scores = record.results[record.evaluated]
    return [
        *(record.fingerprint, label(record.method), record.dataset, record.scale, record.seed, record.evaluated),
        *(config["epochs"], config.get("batch_size"), config.get("backbone", {}).get("name"), record.train_seconds),
        *(record.core_seconds, images_seen(record), ", ".join(dict.fromkeys(codes(record))), entry.committed),
        *(scores.get(protocol) for protocol in protocols),
    ]


def images_seen(record: Record) -> int | None:
    """Images of all training steps, each as often as it was looked at."""
    if record.student_steps is None:
        return None
    batch_size, accumulated = record.config["batch_size"], record.config["trainer"].get("accumulate", 1)
    # The last step of an epoch may take fewer batches.
    batches = record.images["pretraining"] // batch_size if accumulated > 1 else 1
    return int(record.student_steps * batch_size * batches / math.ceil(batches / accumulated))


def whole(entry: StoredRecord, again: str | None) -> Plain:
    """All that is shown of a run that is opened."""
    record = entry.record
    return {
        "command": again,
        "config": dict(leaves(record.config)),
        "results": record.results,
        "protocols": record.protocols,
        "code": record.code_versions,
        "environment": dict(leaves(record.environment)),
        "images": record.images,
        "warnings": record.warnings,
    }


@functools.cache
def _defaults(*choices: str) -> Plain | None:
    try:
        return compose(choices).as_dict()
    except UserError:  # a method or dataset that is not installed here
        return None


def overrides(record: Record) -> tuple[str, ...] | None:
    """The arguments that make the run; None where its method or dataset is not installed here."""
    chosen = [f"{name}={getattr(record, name)}" for name in GROUPED]
    defaults = _defaults(*chosen[: len(CHOSEN)])
    if defaults is None:
        return None
    known = dict(leaves(defaults))
    if views := views_of(record.config, known):
        chosen.append(views)
        known = dict(leaves(_defaults(*chosen[: len(CHOSEN)], views) or {}))
    flat = [(key, value) for key, value in leaves(record.config) if key in known or is_open(key, value)]
    differing = [f"{key}={typed(value)}" for key, value in flat if key not in known or known[key] != value]
    return (
        *chosen,
        *(override for override in differing if counts(override) and override.partition("=")[0] not in GROUPED),
    )


def alone(entry: StoredRecord) -> Run | None:
    """A record as a run of its own; None where its method or dataset is not installed here."""
    record = entry.record
    arguments = overrides(record)
    if arguments is None:
        return None
    config = typed_config(record.config)
    cell = Cell(label(record.method), record.dataset, record.seed, arguments)
    return Run(cell, config, entry, None, committed=entry.committed)


def typed_config(tree: Plain) -> Config:
    """The configuration of a run, which may be older than some options; KeyError where it lacks more than these."""
    names = (f"{group}={tree[group]['name']}" for group in CHOSEN)
    return Config.from_dict(_filled(_defaults(*names) or {}, tree))


def _filled(defaults: Mapping[str, Any], tree: Mapping[str, Any]) -> Plain:
    """``tree`` with the keys that it lacks, as an older record does."""
    found = {key: value for key, value in defaults.items() if key not in tree}
    for key, value in tree.items():
        below = defaults.get(key)
        found[key] = _filled(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return found


def commands(described: Iterable[Run], others: Iterable[StoredRecord]) -> dict[str, str]:
    """What makes each run again, by its name."""
    found = {run.record.fingerprint: command(run) for run in described if run.record}
    for entry in others:
        if entry.record.fingerprint not in found and (run := alone(entry)):
            found[entry.record.fingerprint] = command(run)
    return found


def groups(entries: Sequence[StoredRecord]) -> dict[str, list[Run]]:
    """Runs that one table may hold, by what they have in common; a row has what its runs set, but the seed."""
    found: dict[str, list[Run]] = {}
    for entry in entries:
        record = entry.record
        run = alone(entry)
        if run is not None:
            shared = f"scale={record.scale}, {record.precision} on {record.device}, numerics {record.numerics}"
            if record.batch_statistics != "global":
                shared += f", batch statistics of {record.processes} devices"
            found.setdefault(shared, []).append(run)
    return {name: _named(runs) for name, runs in found.items()}


def _made_from(run: Run) -> dict[str, str]:
    """The images that it saw and the weights that it started from, which no option shows."""
    assert run.record
    init = run.record.init
    return {"images": run.record.data_digest[:12], "weights": init["sha256"][:12] if init else "none"}


def _named(runs: Sequence[Run]) -> list[Run]:
    """``runs`` with rows that state in what they differ; what all of them set is stated once, below the table."""
    own = [
        tuple(override for override in run.cell.overrides if override.partition("=")[0] not in GROUPED) for run in runs
    ]
    extra = [
        override
        for override in dict.fromkeys(override for one in own for override in one)
        if all(override in one for one in own)
    ]
    rows = [
        ", ".join([run.cell.row, *(override for override in chosen if override not in extra)])
        for run, chosen in zip(runs, own, strict=True)
    ]
    made_from: dict[tuple[str, str, str], set[str]] = {}  # of each row and dataset
    for run, row in zip(runs, rows, strict=True):
        for kind, name in _made_from(run).items():
            made_from.setdefault((row, run.cell.dataset, kind), set()).add(name)
    taken = set()
    named = []
    for run, row in zip(runs, rows, strict=True):
        content = _made_from(run).items()
        if differing := [f"{kind} {name}" for kind, name in content if len(made_from[row, run.cell.dataset, kind]) > 1]:
            row = f"{row} ({', '.join(differing)})"
        if (key := (row, run.cell.dataset, run.cell.seed)) in taken and run.record:
            row = f"{row} ({run.record.fingerprint})"
        taken.add(key)
        named.append(replace(run, cell=replace(run.cell, row=row, extra=tuple(extra))))
    return sorted(named, key=lambda run: (run.cell.dataset, run.cell.row, run.cell.seed))
