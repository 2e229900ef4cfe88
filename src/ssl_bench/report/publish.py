"""A table or figure from finished runs and committed records: found, printed, saved."""

from __future__ import annotations

import csv
import filecmp
import importlib
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

from ssl_bench.config import experiments
from ssl_bench.config.options import near_or_all
from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.files import write_text
from ssl_bench.report import calibration, comparison, configurations, expected, provenance, records, render, trials
from ssl_bench.report.records import Run
from ssl_bench.results.record import Record

OTHERS = {"table1": "ssl_bench.report.datasets", "wandb": "ssl_bench.report.dashboard"}  # with words of their own
PLACES = ("data_dir", "logger")  # change no figure, and may name a place on this machine


def report(name: str, words: Sequence[str]) -> None:
    """Render ``name`` for the choices in ``words``."""
    if name not in experiments.names() and name not in OTHERS and not name.endswith(".yaml"):
        raise UserError(f"there is no table or figure {name!r}{near_or_all(name, [*experiments.names(), *OTHERS])}")
    settings, others = experiments.read_words(words, "report.yaml")
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
        words=[word for word in others if word.lstrip("+").partition("=")[0].partition(".")[0] not in PLACES],
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
            f"python -m ssl_bench sweep {' '.join([name, *_without_own(words), *again])} makes them.{failures}"
        )
    kinds = {
        "table": _table,
        "curves": _curves,
        "calibration": _calibration,
        "trials": _trials,
        "expected": _expected,
    }
    render_and_save = kinds[experiment.show["kind"]]
    render_and_save(experiment, runs, configs, Path(settings["calibration"]), out)


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


def _without_own(words: Iterable[str]) -> list[str]:
    """Words that the sweep understands, too."""
    return [word for word in words if word.partition("=")[0] not in ("records", "calibration", "out")]


def _compose(cells: Sequence[experiments.Cell]) -> list[Config]:
    from ssl_bench.config.compose import compose_cells  # it takes its time, and is needed for what is not remembered

    return compose_cells(cells)


# -- what is rendered -----------------------------------------------------------------------------


def _table(
    experiment: experiments.Experiment, runs: list[Run], configs: list[Config], calibrated: Path, out: Path | None
) -> None:
    table = comparison.comparison(experiment, runs, configs, calibration.note(calibrated))
    print(render.markdown(table), end="")
    if out is not None:
        _save_records(out, runs)
        _save(out / "results.csv", lambda path: write_text(path, _csv(provenance.RESULTS, provenance.results(runs))))
        _save(out / "table.md", lambda path: write_text(path, render.markdown(table)))
        _save(out / "table.tex", lambda path: write_text(path, render.latex(table)))
        _save(out / "table.png", lambda path: render.picture(path, table))
        from ssl_bench.report import verdicts  # which draws

        title, ranked = experiment.show["title"], experiment.show["ranked"]
        compared = verdicts.columns(runs, experiment.show["protocols"], ranked)
        if compared:
            _save(out / "differences.png", lambda path: verdicts.forest(path, title, compared))
        if compared and len(verdicts.everywhere(compared)) >= verdicts.FEWEST_ROWS:
            _save(out / "ranks.png", lambda path: verdicts.ranking(path, title, compared))


def _curves(
    experiment: experiments.Experiment, runs: list[Run], configs: list[Config], calibrated: Path, out: Path | None
) -> None:
    from ssl_bench.report import curves

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
        _save(out / "results.csv", lambda path: write_text(path, _csv(curves.CURVES, rows)))
        _save(out / "figure.png", lambda path: curves.picture(path, experiment, runs, configs))


def _calibration(
    experiment: experiments.Experiment, runs: list[Run], configs: list[Config], calibrated: Path, out: Path | None
) -> None:
    protocols = experiment.show["protocols"]
    table = calibration.table(experiment.show["title"], runs, configs, protocols)
    print(render.markdown(table), end="")
    if out is not None:
        deployed = {run.record.fingerprint: run.record.evaluated for run in runs if run.record}
        place = provenance.RESULTS.index
        rows = [
            row
            for row in provenance.results(runs)
            if row[place("protocol")] in protocols and row[place("network")] == deployed[str(row[place("fingerprint")])]
        ]
        _save(out / "results.csv", lambda path: write_text(path, _csv(provenance.RESULTS, rows)))
        _save(out / "table.md", lambda path: write_text(path, render.markdown(table)))


def _trials(
    experiment: experiments.Experiment, runs: list[Run], configs: list[Config], calibrated: Path, out: Path | None
) -> None:
    protocols = experiment.show["protocols"]
    table = render.markdown(trials.table(experiment.show["title"], runs, protocols))
    print(table, end="")
    if out is not None:
        _save_records(out, runs)
        rows = trials.results(runs, protocols)
        _save(out / "results.csv", lambda path: write_text(path, _csv(trials.heading(protocols), rows)))
        _save(out / "table.md", lambda path: write_text(path, table))


def _expected(
    experiment: experiments.Experiment, runs: list[Run], configs: list[Config], calibrated: Path, out: Path | None
) -> None:
    protocols = experiment.show["protocols"]
    table = render.markdown(expected.table(experiment.show["title"], runs, protocols))
    print(table, end="")
    if out is not None:
        _save_records(out, runs)
        rows = map(astuple, expected.of_runs(runs, protocols))
        _save(out / "expected.csv", lambda path: write_text(path, _csv(expected.COLUMNS, rows)))
        _save(out / "table.md", lambda path: write_text(path, table))


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


def _csv(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return text.getvalue()


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
    """Whether a copy says of the run what its record says; how long it took may differ."""
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
