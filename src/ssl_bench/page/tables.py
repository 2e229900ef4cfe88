"""What the page shows of one experiment, as plain values: its table with the seeds behind each mean, and its curves."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ssl_bench.config.definitions import GRIDS
from ssl_bench.config.experiments import Experiment
from ssl_bench.page import panels
from ssl_bench.report import calibration, comparison, curves, expected, hyperparameters, palette, trials
from ssl_bench.report.comparison import Columns, Table
from ssl_bench.report.contrast import PAGES
from ssl_bench.report.palette import row_colours, row_styles
from ssl_bench.report.provenance import command
from ssl_bench.report.records import Run
from ssl_bench.report.statistics import FEWEST, interval
from ssl_bench.report.tables import NAMES

Plain = dict[str, Any]  # as JSON has it
BySeed = dict[int, float]
MOST_PAIRED = 60  # rows of an experiment that are compared two by two
NETWORKS = ("deployed", "student", "teacher")
COSTS = {  # of training, as columns are called and explained; the first that all records of a table have
    "core_seconds": ("core time", "what one core would compute for in training a run, without evaluation"),
    "train_seconds": ("time", "of training a run, without evaluation, on its machine and beside what else that did"),
}


def shown(experiment: Experiment, runs: Sequence[Run], note: str) -> Plain:
    """Table, curves, differences and runs of an experiment; ``note``: on the errors of the table's test.

    Raises:
        UserError: its runs cannot stand together.
    """
    if not any(run.record for run in runs):
        return {"problem": f"None of its {len(runs)} runs is here."}
    kind = experiment.show["kind"]
    over: Plain = {}
    if kind in GRIDS:
        over = {"grid": {"kind": kind, **panels.shown(experiment, runs, partial(_rows, experiment))}}
        named = [panels.in_words(experiment, run.cell.position) for run in runs]
        runs = [replace(run, cell=replace(run.cell, row=row)) for run, row in zip(runs, named, strict=True)]
    if kind in (*GRIDS, "features", "saliency"):  # every position is a row
        experiment = automatic(runs, experiment.show["title"], experiment.show["protocols"])
    found = [run for run in runs if run.record]
    table, scores = _table(experiment, runs, note)
    labels = list(dict.fromkeys(run.cell.row for run in runs))
    costs, timed = _costs(runs) if kind != "trials" else ([], [])  # which has a column of it
    return {
        "kind": kind,
        "methods": len({run.config.method.name for run in runs}),
        **_text(table),
        "notes": [*table.notes, *timed],
        "rows": _rows(experiment, labels),
        **over,
        "costs": costs,
        "seeds": {heading: of_column for heading, of_column in scores.items() if heading in table.columns},
        "curves": _curves(experiment, runs),
        "epochs": curves.epoch_label(runs),
        "drawn": {key: experiment.show[key] for key in ("protocol", "network") if key in experiment.show}
        | {"dataset": found[0].cell.dataset},
        "differences": _differences(runs, scores),
        "runs": [
            {
                "row": run.cell.row,
                "dataset": run.cell.dataset,
                "seed": run.cell.seed,
                "run": run.record.fingerprint,
                "command": command(run),
            }
            for run in found
            if run.record
        ],
    }


def of_options(experiment: Experiment) -> Plain:
    """A table of options, of which nothing is run."""
    table = hyperparameters.table(experiment, hyperparameters.values(experiment))
    return _text(table) | {
        "kind": "options",
        "rows": [],
        "costs": [],
        "seeds": {},
        "curves": [],
        "differences": [],
        "runs": [],
    }


def _text(table: Table) -> Plain:
    """What stands in a table."""
    return {
        "notes": table.notes,
        "columns": table.columns,
        "cells": {
            label: [{"text": entry.text, "bold": entry.bold} for entry in row]
            for label, row in (table.ranked | table.reference).items()
        },
        "ranked": list(table.ranked),
    }


def _table(experiment: Experiment, runs: Sequence[Run], note: str) -> tuple[Table, dict[str, dict[str, BySeed]]]:
    """The experiment's table, and by heading, row and seed the percents behind it."""
    show, kind = experiment.show, experiment.show["kind"]
    if kind == "curves":
        return _last_points(experiment, runs)
    given = show["title"], runs, show["protocols"]
    if kind == "trials":
        return trials.table(*given), {}
    if kind == "expected":
        return _ranges(experiment, runs)
    if kind == "calibration":
        return calibration.table(*given), {}
    scores: dict[str, dict[str, BySeed]] = {}
    for dataset, protocol in itertools.product(dict.fromkeys(run.cell.dataset for run in runs), show["protocols"]):
        here = [run for run in runs if run.cell.dataset == dataset]
        references = {label: comparison.reference(here, protocol, network) for network, label in NAMES.items()}
        scores[f"{dataset}, {protocol}"] = comparison.by_row(here, protocol) | references
    return comparison.comparison(experiment, runs, note), scores


def _ranges(experiment: Experiment, runs: Sequence[Run]) -> tuple[Table, dict[str, dict[str, BySeed]]]:
    """Expected ranges with the labels of rows and headings that other tables have."""
    protocols = experiment.show["protocols"]
    table = expected.table(experiment.show["title"], runs, protocols)
    datasets = list(dict.fromkeys(run.cell.dataset for run in runs))
    if len(datasets) > 1:  # whose ranges stand in one column
        return table, {}
    headings = {f"{datasets[0]}, {protocol}": protocol for protocol in protocols}
    named = {palette.label(method): row for method, row in table.ranked.items()}
    scores = {heading: comparison.by_row(runs, protocol) for heading, protocol in headings.items()}
    return replace(table, columns=list(headings), ranked=named), scores


def _costs(runs: Sequence[Run]) -> tuple[list[Plain], list[str]]:
    """For each dataset the mean seconds that a run of each row trained for, and what stands below."""
    measured = [run for run in runs if run.record and run.record.train_seconds]
    if not measured:
        return [], []
    kind = next(kind for kind in COSTS if all(getattr(run.record, kind) for run in measured))
    spent: dict[str, dict[str, list[float]]] = {}
    for run in measured:
        spent.setdefault(run.cell.dataset, {}).setdefault(run.cell.row, []).append(getattr(run.record, kind))
    name, meaning = COSTS[kind]
    return [
        {"title": f"{dataset}, {name}", "seconds": {row: round(statistics.fmean(of), 2) for row, of in rows.items()}}
        for dataset, rows in spent.items()
    ], [f"{name.capitalize()}: {meaning}; the mean over its seeds."]


def _last_points(experiment: Experiment, runs: Sequence[Run]) -> tuple[Table, dict[str, dict[str, BySeed]]]:
    """A figure as a table: where its lines end."""
    protocol, network = experiment.show["protocol"], experiment.show["network"]
    labels = list(experiment.rows)
    headings: list[str] = []
    entries: dict[str, list[comparison.TableCell]] = {label: [] for label in [*labels, *NAMES.values()]}
    scores: dict[str, dict[str, BySeed]] = {}
    for dataset in dict.fromkeys(run.cell.dataset for run in runs):
        here = [run for run in runs if run.cell.dataset == dataset]
        last: dict[str, BySeed] = {label: {} for label in labels}
        for run in here:
            points = curves.points(run, protocol, network)
            last[run.cell.row] |= {run.cell.seed: points[-1][1]} if points else {}
        headings.append(f"{dataset}, {protocol}")
        found = comparison.column(here, last, protocol, labels)
        for label, row in entries.items():
            row.append(found[label])
        references = {label: comparison.reference(here, protocol, name) for name, label in NAMES.items()}
        scores[headings[-1]] = last | references
    drawn = "the deployed network" if network == "deployed" else f"the {network}"
    return Table(
        title=experiment.show["title"],
        columns=headings,
        notes=[f"{protocol}, the last epoch of {drawn}.", *curves.notes(experiment, runs)],
        ranked={label: entries[label] for label in labels},
        reference={label: entries[label] for label in NAMES.values()},
    ), scores


def _rows(experiment: Experiment, labels: Sequence[str]) -> list[Plain]:
    """How each row is drawn."""
    styles = row_styles(experiment.rows)
    colours = {page: row_colours(experiment.rows, page) for page in PAGES}
    return [
        {
            "label": label,
            "colours": {page: of_page[label] for page, of_page in colours.items()},
            "line": styles[label][0],
            "mark": styles[label][1],
        }
        for label in labels
    ]


def _curves(experiment: Experiment, runs: Sequence[Run]) -> list[Plain]:
    """The lines of every dataset, protocol and network of which curves were recorded."""
    names = {name.split("/")[1] for run in runs if run.record for name in run.record.curves if name.startswith("test/")}
    networks = [n for n in NETWORKS if n == "deployed" or any(run.record and n in run.record.results for run in runs)]
    found = []
    for protocol, network in itertools.product(sorted(names), networks):
        wanted = [run for run in runs if run.record and (network == "deployed" or network in run.record.results)]
        for line in curves.lines(wanted, protocol, network):
            if line.points:
                found.append(
                    {
                        "row": line.row,
                        "dataset": line.dataset,
                        "protocol": protocol,
                        "network": network,
                        "seeds": line.seeds,
                        "points": [[p.epoch, *(round(x, 4) for x in (p.mean, p.low, p.high))] for p in line.points],
                    }
                )
    return found


def _differences(runs: Sequence[Run], scores: Mapping[str, Mapping[str, BySeed]]) -> list[Plain]:
    """Of every two rows the mean difference in each column, and half its 95 % interval."""
    found = []
    compared: Columns = {}
    for heading, rows in scores.items():
        here = [run for run in runs if run.cell.dataset == heading.rpartition(", ")[0]]
        own = {run.cell.row for run in here}
        enough = {row: dict(by_seed) for row, by_seed in rows.items() if row in own and len(by_seed) >= FEWEST}
        compared[heading] = dict(itertools.islice(enough.items(), MOST_PAIRED)), comparison.worth(here)
    for heading, (by_row, step) in compared.items():
        for one, other in itertools.combinations(by_row, 2):
            common = len(by_row[one].keys() & by_row[other].keys())
            if common >= FEWEST:
                mean, half = interval(by_row[one], by_row[other], step=step)
                found.append({"column": heading, "rows": [one, other], "mean": mean, "half": half, "seeds": common})
    return found


def automatic(runs: Sequence[Run], title: str, protocols: Sequence[str] | None = None) -> Experiment:
    """An experiment whose rows are those of ``runs``, where nobody has described one as a table.

    protocols: None: all that the runs were scored under.
    """
    rows: dict[str, tuple[str, ...]] = {run.cell.row: (f"method={run.config.method.name}",) for run in runs}
    scored = dict.fromkeys(name for run in runs if run.record for name in run.record.protocols)
    show = {"protocols": list(protocols or scored), "ranked": list(rows), "published": False}
    show |= {"kind": "table", "title": title}
    return Experiment(name=title, rows=rows, datasets={}, seeds=[], show=show, sweep={}, scales={})
