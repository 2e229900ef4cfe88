"""All that a page shows: findings, experiments with their tables and curves, and every run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench.config import experiments
from ssl_bench.config.compose import compose_cells
from ssl_bench.config.composition import read_ahead
from ssl_bench.config.experiments import Cell
from ssl_bench.errors import UserError
from ssl_bench.page import findings, former, runs, tables
from ssl_bench.page.findings import Finding
from ssl_bench.report import calibration, records
from ssl_bench.report.records import Run, Store, StoredRecord

if TYPE_CHECKING:
    from ssl_bench.page.images import Seen

Plain = dict[str, Any]
FILE = "page.yaml"
CHOOSING = ("scale", *experiments.LISTS)  # options that need the name of an experiment


@dataclass(frozen=True)
class Request:
    """What a page is asked to show."""

    names: list[str]  # of experiments, .yaml files or folders with a README
    settings: dict[str, Any]  # of conf/page.yaml
    overrides: list[str]  # options of the runs
    alone: bool  # the runs of runs_dir by themselves


@dataclass
class Contents:
    """What stands on a page, as plain values."""

    findings: list[Finding] = field(default_factory=list)
    experiments: list[Plain] = field(default_factory=list)
    protocols: list[str] = field(default_factory=list)
    runs: list[list[Any]] = field(default_factory=list)
    whole: dict[str, Plain] = field(default_factory=dict)  # by fingerprint
    skipped: list[str] = field(default_factory=list)  # files that are no record, and why
    images: Seen | None = None  # None: they were not asked for


def request(arguments: Sequence[str]) -> Request:
    """The arguments of the command, checked; UserError in one sentence for a mistake."""
    names = [argument for argument in arguments if "=" not in argument]
    options = [argument for argument in arguments if "=" in argument]
    settings, overrides = experiments.read_overrides(options, FILE)
    given = {option.removeprefix("++").partition("=")[0] for option in options}
    if not names and (overrides or given & set(CHOOSING)):
        first = (overrides or [option for option in options if option.partition("=")[0] in CHOOSING])[0]
        raise UserError(f"{first} chooses among the runs of an experiment: name one, as in page table3 {first}.")
    for name in names:
        written = Path(name), Path(settings["experiments"], name)
        if not (name.endswith(".yaml") or any((folder / findings.README).exists() for folder in written)):
            experiments.find(name)
    return Request(names, settings, overrides, alone=not names and "runs_dir" in given)


def contents(asked: Request) -> Contents:
    """Read all that is asked for; a record that cannot be read is named in ``skipped``.

    Raises:
        UserError: there is nothing to show.
    """
    settings = asked.settings
    store = records.read(Path(settings["runs_dir"]), None if asked.alone else settings["records"])
    entries = runs.of_store(store.entries.values())
    with suppress(UserError):  # of a file that is wrong, which its runs alone shall suffer from
        read_ahead((group, getattr(entry.record, group)) for entry in entries for group in runs.CHOSEN)
    found = Contents(skipped=store.skipped)
    described = _automatic(asked, entries, found) if asked.alone else _described(asked, store, entries, found)
    if not entries and not found.findings and not settings["watch"]:  # the first run may yet finish
        readme = "" if asked.alone else f", no README in {settings['experiments']}"
        if store.skipped:
            readme += f", and {len(store.skipped)} file(s) that are no records, such as {store.skipped[0]}"
        raise UserError(
            f"there is nothing to show: no finished run in {settings['runs_dir']}{readme}; "
            "python -m ssl_bench trains a run."
        )
    _runs(found, entries, described)
    if settings["images"]:
        from ssl_bench.page import images  # PyTorch takes seconds

        found.images = images.seen(described, settings["images"], Path(settings["out"]))
    return found


def _automatic(asked: Request, entries: Sequence[StoredRecord], found: Contents) -> list[Run]:
    """Fill in a table for every kind of runs that may stand together; returns the runs."""
    note = calibration.note(Path(asked.settings["calibration"]))
    described = []
    for name, of_group in runs.groups(entries).items():
        part: Plain = {"name": name, "title": name}
        found.experiments.append(part)
        described += of_group
        try:
            entries_of = [(run.cell, run.entry) for run in of_group if run.entry]
            records.refuse_mixtures(entries_of, of_one_content=False)  # rows of other images have names of their own
            part |= tables.shown(tables.automatic(of_group, name), of_group, note)
        except UserError as error:
            part["problem"] = str(error)
    return described


def _described(asked: Request, store: Store, entries: Sequence[StoredRecord], found: Contents) -> list[Run]:
    """Fill in findings and experiments; returns the runs of all."""
    described: list[Run] = []
    by_name = {entry.record.fingerprint: entry for entry in entries}
    wrong: list[UserError] = []
    note = calibration.note(Path(asked.settings["calibration"]))
    for name, finding, report in _named(asked):
        if finding is not None:
            found.findings.append(finding)
        if report is not None:
            part: Plain = {"name": name, "title": finding.title if finding and finding.title else name}
            found.experiments.append(part)
            try:
                experiment, cells = _cells_of(report)
                part["title"] = experiment.show["title"]
                configs = compose_cells(cells)
            except UserError as error:
                part["problem"] = str(error)
                wrong.append(error)
                continue
            if experiment.show["kind"] == "options":
                part |= tables.of_options(experiment)
                continue
            try:
                matched = records.match(cells, configs, store)
                if finding and report == finding.report:
                    wanted = former.named(finding.folder)
                    before = former.runs(wanted, by_name) if former.stand(wanted, matched) else []
                    if before:
                        part["earlier"] = former.note(before, len(wanted), matched)
                        experiment, matched = former.as_it_was(experiment, before), before
                part |= tables.shown(experiment, matched, note)
                described += matched
            except UserError as error:
                part["problem"] = str(error)
    if asked.names and len(wrong) == len(asked.names):  # such as a misspelt option, which is given to all
        raise wrong[0]
    return described


def _named(asked: Request) -> Iterable[tuple[str, Finding | None, list[str] | None]]:
    """Name, finding and arguments of ``report`` of each experiment."""
    folder = Path(asked.settings["experiments"])
    if not asked.names:
        if (folder / findings.README).exists():  # of all claims, those that no run has been made for, too
            yield folder.name, findings.read(folder), None
        found = [findings.read(readme.parent) for readme in sorted(folder.glob(f"*/{findings.README}"))]
        for finding in sorted(found, key=lambda one: (one.report is None or not one.verdict, not one.verdict)):
            yield finding.name, finding, finding.report if _is_rendered(finding.report) else None
    options = [f"{key}={_typed(asked.settings[key])}" for key in CHOOSING]
    for name in asked.names:
        if Path(name, findings.README).exists():
            finding = findings.read(Path(name))
            yield finding.name, finding, finding.report if _is_rendered(finding.report) else None
        else:
            own, report = folder / Path(name).stem, [name, *options, *asked.overrides]
            written = findings.read(own) if (own / findings.README).exists() else None
            yield Path(name).stem, written, report if _is_rendered(report) else None


def _is_rendered(report: Sequence[str] | None) -> bool:
    """Whether the arguments of ``report`` name a table or figure that has runs or options; some are no sweeps."""
    return report is not None and bool(report) and (report[0].endswith(".yaml") or experiments.is_sweep(report[0]))


def _typed(value: Any) -> str:
    return "null" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _cells_of(report: Sequence[str]) -> tuple[experiments.Experiment, list[Cell]]:
    """The experiment that ``report`` renders, and what it is made of."""
    settings, others = experiments.read_overrides([argument for argument in report if "=" in argument], "report.yaml")
    experiment = experiments.find(next(argument for argument in report if "=" not in argument))
    chosen = {key: settings[key] for key in experiments.LISTS}
    if experiment.show["kind"] == "options":
        return experiment, []
    return experiment, experiment.cells(settings["scale"], **chosen, overrides=others)


def _runs(found: Contents, entries: Sequence[StoredRecord], described: Sequence[Run]) -> None:
    """Fill in every run."""
    found.protocols = list(dict.fromkeys(name for entry in entries for name in entry.record.protocols))
    found.runs = [runs.line(entry, found.protocols) for entry in entries]
    again = runs.commands(described, entries)
    found.whole = {
        entry.record.fingerprint: runs.whole(entry, again.get(entry.record.fingerprint)) for entry in entries
    }
