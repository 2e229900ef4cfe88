"""A table or figure from finished runs and committed records: found, printed, saved."""

from __future__ import annotations

import filecmp
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ssl_bench.config import experiments
from ssl_bench.config.options import near_or_all
from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.files import csv_text, write_text
from ssl_bench.report import calibration, comparison, configurations, expected, provenance, records, render, trials
from ssl_bench.report.records import Run
from ssl_bench.results.record import Record

OTHERS = {"table1": "ssl_bench.report.datasets", "wandb": "ssl_bench.report.dashboard"}  # with options of their own
PLACES = ("data_dir", "logger")  # change no figure, and may name a place on this machine


@dataclass(frozen=True)
class Report:
    """What is rendered of a table or figure."""

    experiment: experiments.Experiment
    runs: list[Run]
    configs: list[Config]  # of the runs
    calibration: Path  # committed accuracies, by which the errors of a table's test are counted
    out: Path | None  # the folder to save in; None: nothing is saved


def report(name: str, options: Sequence[str]) -> None:
    """Render ``name`` for the choices in ``options``."""
    if name not in experiments.names() and name not in OTHERS and not name.endswith(".yaml"):
        raise UserError(f"there is no table or figure {name!r}{near_or_all(name, [*experiments.names(), *OTHERS])}")
    settings, others = experiments.read_words(options, "report.yaml")
    out = None if settings["out"] is None else Path(settings["out"])
    if name == "table1":
        _table1(out)
        return
    experiment = experiments.find(name)
    cells = experiment.cells(
        settings["scale"],
        methods=settings["methods"],
        datasets=settings["datasets"],
        seeds=settings["seeds"],
        words=[option for option in others if option.lstrip("+").partition("=")[0].partition(".")[0] not in PLACES],
    )
    configs = configurations.configurations(cells, _compose, configurations.remembered())
    _check_protocols(experiment, configs[0])
    store = records.read(Path(settings["runs_dir"]), settings["records"])
    runs = records.match(cells, configs, store)
    for sentence in store.skipped:
        print(f"skipped: {sentence}", file=sys.stderr)
    if store.skipped:
        print(f"skipped: {len(store.skipped)} in all; nothing was changed.", file=sys.stderr)
    if not any(run.record for run in runs):
        where = settings["runs_dir"] + (f" or {settings['records']}" if settings["records"] else "")
        failures = "".join(f" {line}" for line in provenance.absent(runs) if line.startswith("Failed"))
        again = ["retry_failed=true"] if failures else []
        raise UserError(
            f"none of the {len(runs)} runs of {name} at scale={settings['scale']} is in {where}; "
            f"python -m ssl_bench sweep {' '.join([name, *_without_own(options), *again])} makes them.{failures}"
        )
    kinds = {"table": _table, "curves": _curves, "calibration": _calibration, "trials": _trials, "expected": _expected}
    kinds[experiment.show["kind"]](Report(experiment, runs, configs, Path(settings["calibration"]), out))


def _check_protocols(experiment: experiments.Experiment, config: Config) -> None:
    """UserError where the runs that are asked for leave out what is shown."""
    show = experiment.show
    if show["kind"] == "curves":
        key, shown, scored = "curves", [show["protocol"]], config.evaluation.curves
    elif show["kind"] == "trials":
        key, shown, scored = "curves", show["protocols"], config.evaluation.curves
    else:
        key, shown, scored = "protocols", show["protocols"], config.evaluation.protocols
    left = [name for name in shown if name not in scored]
    if left:
        raise UserError(
            f"{experiment.name} shows {' and '.join(left)}, which evaluation.{key} leaves out: name it there."
        )


def _without_own(options: Iterable[str]) -> list[str]:
    """Those that the sweep has, too."""
    return [option for option in options if option.partition("=")[0] not in ("records", "calibration", "out")]


def _compose(cells: Sequence[experiments.Cell]) -> list[Config]:
    from ssl_bench.config.compose import compose_cells  # it takes its time, and is needed for what is not remembered

    return compose_cells(cells)


# -- what is rendered -----------------------------------------------------------------------------


def _table(asked: Report) -> None:
    show, runs, out = asked.experiment.show, asked.runs, asked.out
    table = comparison.comparison(asked.experiment, runs, asked.configs, calibration.note(asked.calibration))
    _show(table, asked, "results.csv", provenance.RESULTS, provenance.results(runs))
    if out is not None:
        _save(out / "table.tex", lambda path: write_text(path, render.latex(table)))
        _save(out / "table.png", lambda path: render.picture(path, table))
        from ssl_bench.report import verdicts  # which draws

        compared = comparison.columns(runs, show["protocols"], show["ranked"])
        if compared:
            _save(out / "differences.png", lambda path: verdicts.forest(path, show["title"], compared))
        if compared and len(verdicts.in_all_columns(compared)) >= verdicts.FEWEST_ROWS:
            _save(out / "ranks.png", lambda path: verdicts.ranking(path, show["title"], compared))


def _curves(asked: Report) -> None:
    from ssl_bench.report import curves

    experiment, runs, configs, out = asked.experiment, asked.runs, asked.configs, asked.out
    show = experiment.show
    found = curves.lines(runs, configs, show["protocol"], show["network"])
    print(f"{experiment.name}: {show['title']}, last epoch")
    for line in found:
        last = f"{line.points[-1].mean:.1f} % at epoch {line.points[-1].epoch:g}" if line.points else "–"
        print(f"  {line.dataset}, {line.row}: {last} ({line.network}, {line.seeds}/{line.wanted} seeds)")
    for note in curves.notes(experiment, runs, configs):
        print(f"- {note}")
    if out is not None:
        _save_records(out, runs)
        rows = curves.results(runs, configs, show["protocol"], show["network"])
        _save(out / "results.csv", lambda path: write_text(path, csv_text(curves.CURVES, rows)))
        _save(out / "figure.png", lambda path: curves.picture(path, experiment, runs, configs))


def _calibration(asked: Report) -> None:
    show, runs = asked.experiment.show, asked.runs
    deployed = {run.record.fingerprint: run.record.evaluated for run in runs if run.record}
    place = provenance.RESULTS.index
    rows = (
        row
        for row in provenance.results(runs)
        if row[place("protocol")] in show["protocols"]
        and row[place("network")] == deployed[str(row[place("fingerprint")])]
    )
    table = calibration.table(show["title"], runs, asked.configs, show["protocols"])
    _show(table, asked, "results.csv", provenance.RESULTS, rows, with_records=False)


def _trials(asked: Report) -> None:
    title, protocols, runs = asked.experiment.show["title"], asked.experiment.show["protocols"], asked.runs
    rows = trials.results(runs, protocols)
    _show(trials.table(title, runs, protocols), asked, "results.csv", trials.heading(protocols), rows)


def _expected(asked: Report) -> None:
    title, protocols, runs = asked.experiment.show["title"], asked.experiment.show["protocols"], asked.runs
    rows = map(astuple, expected.of_runs(runs, protocols))
    _show(expected.table(title, runs, protocols), asked, "expected.csv", expected.COLUMNS, rows)


def _show(
    table: comparison.Table,
    asked: Report,
    name: str,
    heading: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    with_records: bool = True,
) -> None:
    """Print a table and, with ``out``, save it there, ``rows`` in the file ``name``, and the records it is made of."""
    text, out = render.markdown(table), asked.out
    print(text, end="")
    if out is not None:
        if with_records:
            _save_records(out, asked.runs)
        _save(out / name, lambda path: write_text(path, csv_text(heading, rows)))
        _save(out / "table.md", lambda path: write_text(path, text))


def _table1(out: Path | None) -> None:
    datasets = other("table1")
    print(datasets.markdown(datasets.table1()), end="")
    if out is not None:
        _save(out, datasets.write)


def other(name: str) -> Any:
    try:
        return importlib.import_module(OTHERS[name])
    except ModuleNotFoundError as error:
        if error.name != OTHERS[name]:
            raise
        raise UserError(f"{name} is not part of this version.") from None


# -- files ----------------------------------------------------------------------------------------


def _save_records(out: Path, runs: Sequence[Run]) -> None:
    """Copy every record, whole, to where it can be committed, unless it is in the folder beside for another table."""
    own = out / "records"
    kept: dict[str, list[Path]] = {}
    for path in (*own.glob("*.json"), *out.parent.glob("*/records/*.json")):
        kept.setdefault(path.name, []).append(path)
    for run in runs:
        if run.entry is not None:
            source = run.entry.path
            name = f"{run.entry.record.fingerprint}.json"
            for copy in kept.get(name, [own / name]):  # of one run there is one record, wherever it lies
                if not copy.exists() or not _same(source, copy, run.entry.record):
                    _save(copy, partial(_copy, source))


def _same(source: Path, copy: Path, record: Record) -> bool:
    """Whether a copy has the figures of the record; how long the run took may differ."""
    if filecmp.cmp(source, copy, shallow=False):
        return True
    try:
        other = json.loads(copy.read_text(encoding="utf-8"))
        return (other["results"], other["curves"]) == (record.results, record.curves)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all; not made durable, which takes long for many, since a copy can be made again."""
    temporary = target.with_name(f".{target.name}")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def _save(path: Path, write: Callable[[Path], object]) -> None:
    """Write; UserError that names ``out`` where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    except (OSError, UserError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = cause.strerror if isinstance(cause, OSError) else str(cause)
        raise UserError(f"out: {path} cannot be written ({reason}); choose another folder.") from None
