"""Finished runs read from folders, and matched to what a table or figure asks for. No data need be on disk."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl_bench.config.experiments import Cell
from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.report.tables import NAMES
from ssl_bench.results.fingerprint import configuration_key
from ssl_bench.results.record import MISFITS, Record, misfit


@dataclass(frozen=True)
class StoredRecord:
    """A record and its file."""

    path: Path
    record: Record
    committed: bool = False  # else of runs_dir


@dataclass
class Store:
    """All records that could be read, and what was wrong with the others."""

    entries: dict[str, list[StoredRecord]] = field(default_factory=dict)  # by configuration_key
    failures: dict[str, str] = field(default_factory=dict)  # configuration_key → error, of runs without a record
    skipped: list[str] = field(default_factory=list)  # files that are no record, and why


@dataclass(frozen=True)
class Run:
    """A cell with what there is of it."""

    cell: Cell
    config: Config
    entry: StoredRecord | None
    failure: str | None
    differs: bool = False  # from the committed record of the same name
    committed: bool = False  # it is in a committed record, itself or a copy
    on: str = "test"  # images on which it is scored, test or validation

    @property
    def record(self) -> Record | None:
        return self.entry.record if self.entry else None

    def percents(self, protocol: str, network: str | None = None) -> float | None:
        """Accuracy on its images, of the network that the method deploys or another; None if there is none."""
        if self.record is None:
            return None
        if self.on == "validation":
            return self.record.on_validation(protocol, network)
        return self.record.results.get(network or self.record.evaluated, {}).get(protocol)

    def collapsed(self, protocol: str, network: str | None = None) -> bool:
        """Whether a warning of collapse stands in the record and features are no better than random weights'.

        A warning alone is no proof: some runs recover. By test images whatever is shown, for random weights are scored
        on no others.
        """
        if self.record is None or not self.record.warnings:
            return False
        results = self.record.results
        percent = results.get(network or self.record.evaluated, {}).get(protocol)
        return percent is not None and percent <= (results.get("random", {}).get(protocol) or 0.0)


def read(runs_dir: Path, committed: str | None) -> Store:
    """All records in ``runs_dir`` and in the folders that the pattern ``committed`` names.

    Nothing is changed; a file that is no record is named in ``skipped``.
    """
    store = Store()
    for path in sorted(runs_dir.glob("*/record.json")):
        _take(store, path, path.parent.name, committed=False)
    for folder in sorted(glob.glob(committed, recursive=True)) if committed else ():
        for path in sorted(Path(folder).glob("[!.]*.json")):
            _take(store, path, path.stem, committed=True)
    for path in sorted(runs_dir.glob("*/failed.json")):
        if (path.parent / "record.json").exists():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            store.failures[configuration_key(content["config"])] = str(content["error"])
        except MISFITS as error:
            store.skipped.append(f"{path} does not name the run that failed ({misfit(error)})")
    return store


def _take(store: Store, path: Path, name: str, *, committed: bool) -> None:
    try:
        record = Record.read(path, name)
        store.entries.setdefault(configuration_key(record.config), []).append(StoredRecord(path, record, committed))
    except ValueError as error:
        store.skipped.append(f"{path} is no finished record ({error})")


def match(cells: Sequence[Cell], configs: Sequence[Config], store: Store) -> list[Run]:
    """Every cell with its record.

    Raises:
        UserError: records differ that one table or figure cannot hold together; they are named.
    """
    require_distinct(cells, configs)
    found: list[list[StoredRecord]] = []
    for config in configs:
        precision = config.trainer.precision
        entries = store.entries.get(configuration_key(config.as_dict()), [])
        entries = [entry for entry in entries if precision in ("auto", entry.record.precision)]
        found.append(_of_one_device(entries, config.trainer.accelerator))
    refuse_mixtures([(cell, entry) for cell, entries in zip(cells, found, strict=True) for entry in _counted(entries)])
    return [
        _run(cell, config, entries, None if entries else store.failures.get(configuration_key(config.as_dict())))
        for cell, config, entries in zip(cells, configs, found, strict=True)
    ]


def require_distinct(cells: Sequence[Cell], configs: Sequence[Config]) -> None:
    """UserError where two cells differ in the places of their files alone, so that no record could tell them apart."""
    first: dict[str, tuple[str, list[str | None]]] = {}
    for cell, config in zip(cells, configs, strict=True):
        plain = config.as_dict()
        places = [plain.get("init"), *(plain["dataset"].get(key) for key in ("root", "test_root"))]
        other, there = first.setdefault(configuration_key(plain), (cell.name, places))
        if there != places:
            raise UserError(
                f"{other} and {cell.name} differ in the folders of their files alone, which records do not hold: give "
                "files of init= different names, and compare folders of pictures each in a runs_dir of its own."
            )


def _counted(entries: Sequence[StoredRecord]) -> list[StoredRecord]:
    """Without committed records of runs that are there themselves."""
    own = {entry.record.fingerprint for entry in entries if not entry.committed}
    return [entry for entry in entries if not (entry.committed and entry.record.fingerprint in own)]


def _of_one_device(entries: Sequence[StoredRecord], accelerator: str) -> list[StoredRecord]:
    """Those that were computed on the ``accelerator``; under ``auto`` on the devices of one's own runs, if any."""
    if accelerator == "auto":
        wanted = {entry.record.device for entry in entries if not entry.committed}
    else:
        wanted = {"cuda" if accelerator == "gpu" else accelerator}
    return [entry for entry in entries if not wanted or entry.record.device in wanted]


def _run(cell: Cell, config: Config, entries: Sequence[StoredRecord], failure: str | None) -> Run:
    """The cell with its one record. Copies are the same; a run of one's own counts before a committed record of it."""
    differs, committed = False, any(entry.committed for entry in entries)
    for other in entries[1:]:
        first = entries[0]  # of runs_dir, where there is one
        if other.record.fingerprint != first.record.fingerprint:
            raise UserError(f"{first.path} and {other.path} both claim to be {cell.name}: move one of them away.")
        if (other.record.results, other.record.curves) != (first.record.results, first.record.curves):
            if other.committed == first.committed:
                raise UserError(
                    f"{first.path} and {other.path} are of one run, {first.record.fingerprint}, with different "
                    "results: move one of them away, or read others with records=."
                )
            differs = True
    return Run(cell, config, entries[0] if entries else None, failure, differs, committed and not differs)


def refuse_mixtures(found: Sequence[tuple[Cell, StoredRecord]], *, of_one_content: bool = True) -> None:
    """UserError where the records were not made and measured in one way.

    of_one_content: whether all of a dataset must have been made of the same images.
    """
    stored = [entry for _, entry in found]

    def refuse(
        what: str, value: Callable[[Record], object], hint: str = OTHERS, among: Sequence[StoredRecord] = stored
    ) -> None:
        """Where the ``value`` is not the same for all records that have one."""
        paths: dict[object, list[str]] = {}
        for entry in among:
            if (own := value(entry.record)) is not None:
                paths.setdefault(own, []).append(str(entry.path))
        if len(paths) > 1:
            content = "; ".join(f"{own} in {_first_three(named)}" for own, named in paths.items())
            raise UserError(f"{what} differs, {content}: such records are never mixed; {hint}.")

    refuse("the scale", lambda record: record.scale)
    refuse("the version of numerics", lambda record: record.numerics)
    refuse("the precision", lambda record: record.precision, "choose one with trainer.precision=")
    refuse("the device", lambda record: record.device, "choose one with trainer.accelerator=cpu or gpu")
    refuse("what BatchNorm takes its statistics of", _batch_statistics)
    for protocol in dict.fromkeys(name for entry in stored for name in entry.record.protocols):
        refuse(f"the version of protocol {protocol}", lambda record, p=protocol: record.protocols.get(p), SCORED_AGAIN)  # type: ignore[misc]
    for dataset in dict.fromkeys(entry.record.dataset for entry in stored):
        of_it = [entry for entry in stored if entry.record.dataset == dataset]
        for network, name in NAMES.items():  # raw pixels of large images have another version than those of small ones
            what = f"the version of the baseline {name} on {dataset}"
            refuse(what, lambda record, n=network: record.baselines[n], SCORED_AGAIN, of_it)  # type: ignore[misc]
        if of_one_content:
            refuse(f"the content of {dataset}", lambda record: record.data_digest[:12], among=of_it)


def _batch_statistics(record: Record) -> str:
    kind = record.batch_statistics
    return kind if kind == "global" else f"{kind} of {record.processes}"


OTHERS = "move the others away, or read others with runs_dir= and records="
SCORED_AGAIN = (
    "runs score again from their checkpoints once their record.json is removed; or read others with runs_dir= and "
    "records="
)


def _first_three(paths: Sequence[str]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
