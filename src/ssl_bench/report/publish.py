"""A table or figure from finished runs and committed records: found, printed, saved."""

from __future__ import annotations

import filecmp
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any

from ssl_bench.config import definitions, experiments
from ssl_bench.config.compose import compose_cells
from ssl_bench.config.experiments import Experiment
from ssl_bench.errors import NO_ROOM, UserError, is_full
from ssl_bench.files import csv_text, write_text
from ssl_bench.report import (
    calibration,
    comparison,
    curves,
    expected,
    feature_maps,
    grid_pictures,
    grids,
    hyperparameters,
    provenance,
    records,
    render,
    saliency,
    trials,
    verdicts,
)
from ssl_bench.report.feature_maps import Features
from ssl_bench.report.records import Run
from ssl_bench.report.saliency import Maps
from ssl_bench.results.record import MISFITS, PROJECTOR, Record

PLACES = ("data_dir", "logger")  # change no figure, and may name a place on this machine
OWN = ("records", "calibration", "on", "out")  # options that the sweep does not have
ON_TEST = {  # kinds that have no figures of validation images to be shown in place of test's, and why
    "calibration": "counts how often figures of test images differ by chance",
    "expected": "gives ranges of figures of test images",
    "features": "draws the features of test images",
    "saliency": "shows where encoders look on test images",
    "trials": "ranks by validation images as it is",
    "options": "shows options alone",
}

SCORED = ("results", "curves", "protocols", "baselines", "notes", "warnings")  # of a record, which a table shows
PICTURES = {"differences.png", "ranks.png"}  # that a table has only where there is something to compare

Files = dict[str, Callable[[Path], object]]  # what writes each, by name
Read = Callable[[Mapping[str, Any], Sequence[Run], str | None], Sequence[Any]]  # what is shown, runs, where data are


def report(name: str, options: Sequence[str], read: Read) -> None:
    """Render ``name`` for the choices in ``options``; read: what encoders see, for figures of that."""
    settings, others = experiments.read_overrides(options, "report.yaml")
    experiment = experiments.find(name)
    if settings["on"] == "validation":
        _prepare_validation(experiment, settings["out"])
    if experiment.show["kind"] == "options":
        _report_options(experiment, settings["out"])
        return
    cells = experiment.cells(
        settings["scale"],
        **{key: settings[key] for key in experiments.LISTS},
        overrides=[option for option in others if option.partition("=")[0].partition(".")[0] not in PLACES],
    )
    configs = compose_cells(cells)
    experiments.require_scored(experiment, configs)
    store = records.read(Path(settings["runs_dir"]), settings["records"])
    runs = [replace(run, on=settings["on"]) for run in records.match(cells, configs, store)]
    for sentence in store.skipped:
        print(f"skipped: {sentence}", file=sys.stderr)
    if store.skipped:
        print(f"skipped: {len(store.skipped)} in all; nothing was changed.", file=sys.stderr)
    of_sweep = [option for option in options if option.removeprefix("++").partition("=")[0] not in OWN]
    makes = f"python -m ssl_bench sweep {shlex.join([name, *of_sweep])}"
    if not any(run.record for run in runs):
        where = settings["runs_dir"] + (f" or {settings['records']}" if settings["records"] else "")
        failures = "".join(f" {line}" for line in provenance.absent(runs) if line.startswith("Failed"))
        raise UserError(
            f"none of the {len(runs)} runs of {name} at scale={settings['scale']} is in {where}; "
            f"{makes}{' retry_failed=true' if failures else ''} makes them.{failures}"
        )
    if settings["on"] == "validation":
        _require_validation(experiment, runs)
    if experiment.show["kind"] in OF_ENCODERS:
        data_dir = next((override.partition("=")[2] for override in others if override.startswith("data_dir=")), None)
        found = read(experiment.show, runs, data_dir)
        if not found:
            raise UserError(
                f"{experiment.name} is drawn from encoders, which are in the runs' folders and not among committed "
                f"records: none of the {len(runs)} is there; {makes} makes them."
            )
        text, files = OF_ENCODERS[experiment.show["kind"]](experiment, runs, found)
    else:
        text, files = _rendered(experiment, runs, Path(settings["calibration"]))
    print(text, end="")
    if settings["out"] is not None:
        out = Path(settings["out"])
        if experiment.show["kind"] != "calibration":  # its records are many, and its accuracies all that is read
            for copy in _save_records(out, runs, store):
                where = copy.parent.parent
                print(f"replaced: {copy}, whose figures were others; render what {where} holds anew.", file=sys.stderr)
        for file, write in files.items():
            save(out / file, write)
        if experiment.show["kind"] == "table":
            for file in PICTURES - files.keys():  # of another selection of runs
                (out / file).unlink(missing_ok=True)


def _report_options(experiment: Experiment, out: str | None) -> None:
    found = hyperparameters.values(experiment)
    print(render.markdown(hyperparameters.table(experiment, found)), end="")
    if out is not None:
        save(Path(out), lambda folder: hyperparameters.write(folder, experiment, found))


def _prepare_validation(experiment: Experiment, out: str | None) -> None:
    """Leave out what is scored on test images alone; UserError where nothing else is shown."""
    kind = experiment.show["kind"]
    if kind in ON_TEST:
        raise UserError(f"{experiment.name} {ON_TEST[kind]}: leave on=validation out.")
    if out is not None:
        raise UserError("on=validation is printed only, for results and records are of test images: leave out= out.")
    experiment.show["published"] = False
    if PROJECTOR in experiment.show.get("networks", ()):
        experiment.show["networks"] = [name for name in experiment.show["networks"] if name != PROJECTOR]
        if not experiment.show["networks"]:
            raise UserError(f"{experiment.name} shows the projector, which is scored on test images alone.")
        print("left out: the projector, which is scored on test images alone.", file=sys.stderr)


def _require_validation(experiment: Experiment, runs: Sequence[Run]) -> None:
    """UserError where none of the runs has figures of validation images."""
    for protocol in experiment.protocols:
        if all(run.record is None or run.record.on_validation(protocol) is None for run in runs):
            raise UserError(
                f"no run of {experiment.name} has {protocol} on validation images: evaluation.curves must name it, and "
                "scale=paper holds none out."
            )


def _rendered(experiment: Experiment, runs: Sequence[Run], accuracies: Path) -> tuple[str, Files]:
    """What is printed of a table or figure, and what writes each of its files.

    accuracies: those by which the errors of a table's test are counted.
    """
    show, kind = experiment.show, experiment.show["kind"]
    if kind == "curves":
        points = curves.results(runs, show["protocol"], show["network"])
        drawn = partial(curves.picture, experiment=experiment, runs=runs)
        return curves.text(experiment, runs), {"results.csv": _csv(curves.CURVES, points), "figure.png": drawn}
    if kind in definitions.GRIDS:
        text = "".join(map(render.markdown, grids.tables(experiment, runs)))
        drawn = partial(grid_pictures.picture, experiment=experiment, runs=runs)
        csv_lines = _csv(grids.HEADING, grids.results(runs))
        return text, {"results.csv": csv_lines, "table.md": lambda path: write_text(path, text), "figure.png": drawn}
    protocols: Sequence[str] = show["protocols"]
    given = show["title"], runs, protocols
    csv = "results.csv"
    heading: Sequence[str] = provenance.RESULTS
    rows: Iterable[Sequence[object]] = provenance.results(runs)
    files: Files = {}
    if kind == "trials":
        table, heading, rows = trials.table(*given), trials.heading(protocols), trials.results(runs, protocols)
    elif kind == "expected":
        table, heading, rows = expected.table(*given), expected.COLUMNS, map(astuple, expected.of_runs(runs, protocols))
        csv = "expected.csv"
    elif kind == "calibration":
        table, rows = calibration.table(*given), provenance.results(runs, protocols)
    else:
        table = comparison.comparison(experiment, runs, calibration.note(accuracies))
        compared = comparison.columns(runs, protocols, show["ranked"])
        files = {
            "table.tex": lambda path: write_text(path, render.latex(table)),
            "table.png": lambda path: render.picture(path, table),
        }
        if compared:
            files["differences.png"] = lambda path: verdicts.forest(path, show["title"], compared)
        if compared and verdicts.can_differ(compared):
            files["ranks.png"] = lambda path: verdicts.ranking(path, show["title"], compared)
    text = render.markdown(table)
    return text, {csv: _csv(heading, rows), "table.md": lambda path: write_text(path, text), **files}


def _of_features(experiment: Experiment, runs: Sequence[Run], found: Sequence[Features]) -> tuple[str, Files]:
    """The same of a figure that is drawn from the runs' encoders."""
    feature_maps.require_classes(found)
    text = render.markdown(feature_maps.table(experiment, runs, found))
    return text, {
        "results.csv": _csv(feature_maps.HEADING, feature_maps.results(experiment, found)),
        "table.md": lambda path: write_text(path, text),
        "figure.png": partial(feature_maps.picture, experiment=experiment, runs=runs, found=found),
    }


def _of_saliency(experiment: Experiment, runs: Sequence[Run], found: Sequence[Maps]) -> tuple[str, Files]:
    paired = saliency.pairs(experiment, found)
    text = render.markdown(saliency.table(experiment, runs, paired))
    return text, {
        "results.csv": _csv(feature_maps.HEADING, feature_maps.results(experiment, paired)),
        "table.md": lambda path: write_text(path, text),
        "figure.png": partial(saliency.picture, experiment=experiment, runs=runs, found=paired),
    }


OF_ENCODERS: dict[str, Callable[[Experiment, Sequence[Run], Sequence[Any]], tuple[str, Files]]] = {
    "features": _of_features,
    "saliency": _of_saliency,
}


def _csv(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> Callable[[Path], object]:
    return lambda path: write_text(path, csv_text(heading, rows))


def _save_records(out: Path, runs: Sequence[Run], store: records.Store) -> list[Path]:
    """Copy every record, whole, to where it can be committed, unless it is committed already for another table.

    Returns those of other tables that have other figures and are replaced: of one run there is one record.
    """
    own = out / "records"
    replaced = []
    kept: dict[str, list[Path]] = {}
    committed = (entry.path for entries in store.entries.values() for entry in entries if entry.committed)
    for path in (*own.glob("*.json"), *committed):
        kept.setdefault(path.name, []).append(path)
    for run in runs:
        if run.entry is not None:
            name = f"{run.entry.record.fingerprint}.json"
            for copy in kept.get(name, [own / name]):
                if not copy.exists() or not _same(run.entry.path, copy, run.entry.record):
                    if copy.exists() and copy.parent.resolve() != own.resolve():
                        replaced.append(copy)
                    save(copy, partial(_copy, run.entry.path))
    return replaced


def _same(source: Path, copy: Path, record: Record) -> bool:
    """Whether a copy has the figures of the record, by the same protocols; how long the run took may differ."""
    if filecmp.cmp(source, copy, shallow=False):
        return True
    try:
        other = Record.from_json(json.loads(copy.read_text(encoding="utf-8")))
    except MISFITS:
        return False
    return all(getattr(other, key) == getattr(record, key) for key in SCORED)


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all; not made durable, which takes long for many, since a copy can be made again."""
    temporary = target.with_name(f".{target.name}")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def save(path: Path, write: Callable[[Path], object]) -> None:
    """Write; UserError that names ``out`` where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    except (OSError, UserError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        status = NO_ROOM if is_full(cause) else None
        raise UserError(f"out: {path} cannot be written ({cause.strerror}); choose another folder.", status) from None
