"""Where figures come from: what stands under and beside them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence

from ssl_bench.config.experiments import Cell
from ssl_bench.report.records import Run
from ssl_bench.report.tables import NAMES, network_note
from ssl_bench.results.code import code_digest
from ssl_bench.results.fingerprint import FREE
from ssl_bench.results.record import Record

SHOWN = ("trainer", "trainer.precision")


def provenance(runs: Sequence[Run]) -> list[str]:
    """Lines about precision, numerics and code of the runs that are finished, one at least, and about the others."""
    records = [run.record for run in runs if run.record]
    versions = sorted({name for record in records for name in codes(record)})
    alike = {(record.precision, record.numerics, record.batch_statistics) for record in records}
    lines = [f"{precision}, numerics {numerics}, batch statistics {kind}" for precision, numerics, kind in alike]
    mixed = f"mixed code versions: {', '.join(versions)}" if len(versions) > 1 else f"code {versions[0]}"
    notes = [f"{lines[0]}; {mixed}."]
    extra = dict.fromkeys(override for run in runs for override in run.cell.extra if counts(override))
    if extra:
        notes.append(f"Set for all runs: {' '.join(extra)}.")
    notes += _networks(runs)
    notes += _changed_code(runs)
    digests = dict.fromkeys(run.record.data_digest[:12] for run in runs if run.record and run.cell.dataset == "folder")
    notes += [f"folder: pictures of content {digest}." for digest in digests]
    differing = sum(run.differs for run in runs)
    if differing:
        notes.append(
            f"{differing} of these runs are one's own, with other results than the committed records of the same name, "
            "as another number of threads or another machine gives them."
        )
    return [*notes, *absent(runs)]


def _networks(runs: Sequence[Run]) -> Iterator[str]:
    """Lines about rows whose backbone is timm's, which may come with an optimiser of its own."""
    rows: dict[str, list[str]] = {}
    for run in runs:
        note = network_note(run.config.as_dict())
        if note is not None:
            rows.setdefault(note, []).append(run.cell.row)
    for note, names in rows.items():
        yield f"{', '.join(dict.fromkeys(names))}: {note}."


def _changed_code(runs: Sequence[Run]) -> Iterator[str]:
    """Lines about methods whose code is not the same in all records, or not in one's own runs and here."""
    digests: dict[str, set[str]] = {}
    own: dict[str, str] = {}  # method → its class, of runs that are no committed records
    for run in runs:
        if run.entry is not None:
            method = run.config.method
            known = {str(version["digest"]) for version in run.entry.record.code_versions if version.get("digest")}
            digests.setdefault(method.name, set()).update(known)
            if known and not run.committed:
                own[method.name] = method.target
    mixed = [name for name, known in digests.items() if len(known) > 1]
    since = [name for name, target in own.items() if name not in mixed and code_digest(target) not in digests[name]]
    if mixed:
        yield f"The code of {', '.join(mixed)} is not the same in all of its runs."
    if since:
        yield f"The code of {', '.join(since)} has changed since these runs: rerun=true trains them again."


def counts(override: str) -> bool:
    """Whether an override may change figures in a way that nothing else shows; devices and precision are shown."""
    key = override.lstrip("+").partition("=")[0]
    return key not in (*FREE, *SHOWN) and key.partition(".")[0] not in FREE


def codes(record: Record) -> Iterator[str]:
    """What a run was trained by; several where it was interrupted."""
    for code in record.code_versions:
        name = str(code["commit"])[:7] if code.get("commit") else f"version {code.get('version')}"
        yield f"{name} (modified)" if code.get("modified") else name


def absent(runs: Sequence[Run]) -> list[str]:
    """Lines about runs that are missing or failed; none where all are there."""
    missing = [run for run in runs if run.record is None and run.failure is None]
    failed = [run for run in runs if run.failure is not None]
    lines = [f"Missing: {len(missing)} of {len(runs)} runs."] if missing else []
    if failed:
        lines.append(f"Failed: {len(failed)} of {len(runs)} runs, such as {failed[0].cell.name}: {failed[0].failure}")
    return lines


def command(run: Run) -> str:
    """What gives the record's figures again, on the same machine digit by digit."""
    assert run.record is not None
    record = run.record
    notes: dict[str, object] = {
        "trainer.precision": record.precision,
        "trainer.threads": record.environment["threads"],
        "trainer.accelerator": "cpu" if record.device == "cpu" else "gpu",
    }
    devices = ("trainer", "trainer.devices", "trainer.nodes", "trainer.sync_batchnorm")
    if record.processes > 1:
        synced = str(record.batch_statistics == "global").lower()
        notes |= dict(zip(devices, ("ddp", *record.devices_and_nodes, synced), strict=True))
    # The cell has of these what was asked for, the record what came of it.
    overrides = [
        override for override in run.cell.overrides if override.lstrip("+").partition("=")[0] not in (*notes, *devices)
    ]
    overrides += [f"{key}={value}" for key, value in notes.items()]
    return f"python -m ssl_bench {shlex.join(overrides)}"


RESULTS = ("dataset", "row", "seed", "network", "protocol", "percent", "fingerprint", "command")


def results(
    runs: Sequence[Run],
    counted: Collection[str] | None = None,
    place: Callable[[Cell], Sequence[str]] = lambda cell: [cell.row],
) -> Iterator[tuple[object, ...]]:
    """One line of RESULTS for every accuracy on test images in the records.

    Random weights and raw pixels have a line for each of their accuracies that no earlier run of the seed has.
    counted: protocols; then of the network that the method deploys under these alone.
    place: what stands for the row.
    """
    shared = set()
    for run in runs:
        if record := run.record:
            cell, again = run.cell, command(run)
            for network, scores in record.results.items():
                for protocol, percent in scores.items():
                    score = (cell.seed, network, protocol, percent)
                    wanted = counted is None or (protocol in counted and network == record.evaluated)
                    if percent is None or not wanted or (cell.dataset, score) in shared:
                        continue
                    if network in NAMES:
                        shared.add((cell.dataset, score))
                    yield cell.dataset, *place(cell), *score, record.fingerprint, again
