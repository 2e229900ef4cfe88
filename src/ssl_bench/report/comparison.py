"""A table of methods by datasets and protocols: what stands in it, before it is Markdown, LaTeX or a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ssl_bench.config.definitions import BASELINES
from ssl_bench.config.experiments import Experiment, passes_per_epoch
from ssl_bench.report.provenance import counts, provenance
from ssl_bench.report.published import Figure, figures
from ssl_bench.report.records import Run
from ssl_bench.report.statistics import (
    ALPHA,
    FEWEST,
    MOST_SEEDS,
    POWER,
    BySeed,
    distinguished,
    mean_and_spread,
    seeds_needed,
)
from ssl_bench.report.tables import NAMES

# Overrides that make no other row of a method: what published figures are compared by, and when curves are measured.
COMPARED = ("method", "dataset", "scale", "seed", "epochs", "batch_size", "eval_every", "monitor_every")
ENOUGH = 5  # seeds; with fewer, what is not marked shows more of the test than of the rows
APART = "†"
COLLAPSED = "Collapsed: warned of during training, and no better than random weights."

Columns = dict[str, tuple[dict[str, dict[int, float]], float]]  # by heading: percent by row and seed, one image


@dataclass(frozen=True)
class TableCell:
    """What stands at one place of a table."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of entries under headings; reference rows stand below a rule, notes below the table."""

    title: str
    columns: list[str]
    notes: list[str]
    ranked: dict[str, list[TableCell]]
    reference: dict[str, list[TableCell]] = field(default_factory=dict)


def comparison(experiment: Experiment, runs: Sequence[Run], calibration: str) -> Table:
    """The table of ``experiment``; ``calibration`` is a note on the test's errors."""
    protocols: list[str] = experiment.show["protocols"]
    datasets = list(dict.fromkeys(run.cell.dataset for run in runs))
    labels = list(dict.fromkeys(run.cell.row for run in runs))
    columns: list[str] = []
    baselines = list(NAMES.values()) if runs[0].on == "test" else []
    entries: dict[str, list[TableCell]] = {label: [] for label in [*labels, *baselines]}
    origins: dict[str, str] = {}  # of published figures: origin → letter

    def add(heading: str, found: Mapping[str, TableCell]) -> None:
        columns.append(heading)
        for label, row in entries.items():
            row.append(found.get(label, TableCell("")))

    for dataset in datasets:
        here = [run for run in runs if run.cell.dataset == dataset]
        config = {run.cell.row: run.config for run in here}
        theirs = [
            (label, figure)
            for label in (_plain_rows(here) if experiment.show["published"] else ())
            for figure in figures()
            if (figure.method, figure.dataset) == (config[label].method.name, dataset)
            and not figure.differs(config[label])
        ]
        beside: set[Figure] = set()
        for protocol in protocols:
            add(f"{dataset}, {protocol}", column(here, by_row(here, protocol), protocol, experiment.show["ranked"]))
            same = [(label, figure) for label, figure in theirs if figure.means_the_same(protocol, config[label])]
            beside.update(figure for _, figure in same)
            if same:
                add(f"{dataset}, {protocol}, published", _published(same, origins))
        others = [(label, figure) for label, figure in theirs if figure not in beside]
        for name in dict.fromkeys(figure.protocol for _, figure in others):
            under = [(label, figure) for label, figure in others if figure.protocol == name]
            add(f"{dataset}, published under {name}", _published(under, origins))
    return Table(
        title=experiment.show["title"],
        columns=columns,
        ranked={label: entries[label] for label in labels if label in experiment.show["ranked"]},
        reference={label: row for label, row in entries.items() if label not in experiment.show["ranked"]},
        notes=_notes(runs, protocols, experiment.show["ranked"], calibration, origins),
    )


def _plain_rows(runs: Sequence[Run]) -> list[str]:
    """Rows that are their method as it is: only what published figures are compared by may change its numbers."""
    plain = {
        run.cell.row: all(
            override.partition("=")[0] in COMPARED or not counts(override) for override in run.cell.overrides
        )
        for run in runs
    }
    return [label for label, is_plain in plain.items() if is_plain]


def column(
    runs: Sequence[Run], scores: Mapping[str, dict[int, float]], protocol: str, ranked: Sequence[str]
) -> dict[str, TableCell]:
    """Entries of one dataset under one protocol by row; ``scores``: percent by row and seed."""
    highest, apart = distinguished({row: scores[row] for row in scores if row in ranked}, step=worth(runs))
    entries = {}
    for row, by_seed in scores.items():
        cells = [run for run in runs if run.cell.row == row]
        failed = sum(run.failure is not None for run in cells)
        inapplicable = not by_seed and any(run.record for run in cells)
        text = "n. a." if inapplicable else figure(by_seed, wanted=len(cells), failed=failed)
        collapsed = sum(run.collapsed(protocol) for run in cells)
        text += f" {APART}" if row in apart else ""
        text += f", collapsed {collapsed}/{len(by_seed)}" if collapsed else ""
        entries[row] = TableCell(text, row == highest)
    for network, label in NAMES.items():
        entries[label] = TableCell(
            figure(reference(runs, protocol, network), wanted=len({run.cell.seed for run in runs}))
        )
    return entries


def by_row(runs: Sequence[Run], protocol: str) -> dict[str, dict[int, float]]:
    """Percent by row and seed; a row without records is empty."""
    scores: dict[str, dict[int, float]] = {}
    for run in runs:
        percent = run.percents(protocol)
        scores.setdefault(run.cell.row, {})
        if percent is not None:
            scores[run.cell.row][run.cell.seed] = percent
    return scores


def worth(runs: Sequence[Run]) -> float:
    """What one image is worth in percent; 0 without images."""
    images = [run.record.images.get(run.on, run.record.images["test"]) for run in runs if run.record]
    return max((100 / number for number in images if number), default=0.0)


def columns(runs: Sequence[Run], protocols: Sequence[str], ranked: Sequence[str]) -> Columns:
    """By heading: percent by ranked row and seed, and what one test image is worth; rows of FEWEST seeds and more."""
    found: Columns = {}
    for dataset in dict.fromkeys(run.cell.dataset for run in runs):
        here = [run for run in runs if run.cell.dataset == dataset]
        for protocol in protocols:
            rows = {r: s for r, s in by_row(here, protocol).items() if r in ranked and len(s) >= FEWEST}
            if len(rows) > 1:
                found[f"{dataset}, {protocol}"] = rows, worth(here)
    return found


def reference(runs: Sequence[Run], protocol: str, network: str) -> dict[int, float]:
    """Accuracy by seed of random weights or raw pixels: the mean over all records of the seed."""
    found: dict[int, list[float]] = {}
    for run in runs:
        percent = run.percents(protocol, network)
        if percent is not None:
            found.setdefault(run.cell.seed, []).append(percent)
    return {seed: statistics.fmean(values) for seed, values in found.items()}


def figure(by_seed: BySeed, *, wanted: int, failed: int = 0) -> str:
    """``95.4 ± 0.3``, with what is missing: ``95.4 ± 0.3 (2/3)``."""
    text = "–"
    if by_seed:
        mean, spread = mean_and_spread(list(by_seed.values()))
        text = f"{mean:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")
    if len(by_seed) == wanted:
        return text
    return f"{text} ({len(by_seed)}/{wanted}{f', {failed} failed' if failed else ''})"


def _published(found: Iterable[tuple[str, Figure]], origins: dict[str, str]) -> dict[str, TableCell]:
    """Entries by row; each figure has the letter of its origin."""
    texts: dict[str, list[str]] = {}
    for label, one in found:
        letter = origins.setdefault(one.origin, _letter(len(origins)))
        texts.setdefault(label, []).append(f"{one.top1_percent} [{letter}]")
    return {label: TableCell(", ".join(shown)) for label, shown in texts.items()}


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else _letter(number // 26 - 1) + _letter(number % 26)


def _notes(
    runs: Sequence[Run], protocols: Sequence[str], ranked: Sequence[str], calibration: str, origins: Mapping[str, str]
) -> list[str]:
    several, compared = max(seeds_of(runs).values()) > 1, columns(runs, protocols, ranked)
    spread = f"mean ± standard deviation over n = {number_of_seeds(runs)}" if several else "one seed"
    lines = [
        f"% of {runs[0].on} images, {spread}"
        + ("; (k/n): there are k of them." if any(run.record is None for run in runs) else "."),
        *([] if runs[0].on == "test" else [f"{' and '.join(BASELINES).capitalize()} are scored on test images alone."]),
        *([COLLAPSED] if any(run.collapsed(protocol) for run in runs for protocol in protocols) else []),
        *_test(min((len(seeds) for rows, _ in compared.values() for seeds in rows.values()), default=0), calibration),
        *_closest(compared),
        f"Protocols {with_versions(protocols, runs)}; scale {runs[0].config.scale.name}; {epochs(runs)}.",
        *provenance(runs),
    ]
    if origins:
        lines.append("Published, beside ours only where protocol, epochs, batch size and network are the same:")
        lines += [f"[{letter}] {origin}." for origin, letter in origins.items()]
    return lines


def _test(n: int, calibration: str) -> list[str]:
    """What is marked, and how often it is so by chance; ``n``: the fewest seeds that are compared, 0 if none are."""
    if n < FEWEST:
        return [f"Nothing is marked: that takes at least two rows with {FEWEST} seeds each."]
    few = f"; {n} seeds show large and steady differences alone" if n < ENOUGH else ""
    return [
        f"Bold: the highest mean of the rows that are compared. {APART}: differs significantly from it by a t-test "
        f"paired by seed (Holm-corrected within the column, α = {ALPHA:g}{few}); without a mark it is not known which "
        f"is better. Rows with fewer than {FEWEST} seeds are not compared.",
        calibration,
    ]


def _closest(compared: Columns) -> list[str]:
    """How many more seeds would show that the highest row of each column differs from the nearest without a mark."""
    found = []
    for heading, (rows, step) in compared.items():
        highest, apart = distinguished(rows, step=step)
        if highest is None:
            continue
        others = rows.keys() - apart - {highest}
        rivals = [row for row in others if len(rows[row].keys() & rows[highest].keys()) >= FEWEST]
        if rivals:
            nearest = max(rivals, key=lambda row: (statistics.fmean(rows[row].values()), row))
            needed = seeds_needed(rows[highest], rows[nearest], step=step)
            shared = len(rows[highest].keys() & rows[nearest].keys())
            more = f"{max(1, needed - shared):,}" if needed else f"over {MOST_SEEDS:,}"
            found.append(f"{heading}: {highest} and {nearest}, {more}")
    if not found:
        return []
    return [
        f"More seeds, at least, that would show with a power of {POWER:.0%} that the closest two differ, were "
        f"difference and spread as measured: {'; '.join(found)}."
    ]


def with_versions(protocols: Sequence[str], runs: Sequence[Run]) -> str:
    """``knn1 v1, linear v2``; a protocol that no run has is left out."""
    versions = {name: version for run in runs if run.record for name, version in run.record.protocols.items()}
    return ", ".join(f"{name} v{versions[name]}" for name in protocols if name in versions)


def seeds_of(runs: Sequence[Run]) -> dict[str, int]:
    """How many seeds with a record each dataset has; datasets without one are left out."""
    seeds: dict[str, set[int]] = {}
    for run in runs:
        if run.record:
            seeds.setdefault(run.cell.dataset, set()).add(run.cell.seed)
    return {dataset: len(found) for dataset, found in seeds.items()}


def number_of_seeds(runs: Sequence[Run]) -> str:
    """``5 seeds``, or ``5 seeds on cifar10, 10 on digits``."""
    found = seeds_of(runs)
    if len(set(found.values())) == 1:
        return f"{min(found.values())} seeds"
    return ", ".join(f"{n}{'' if i else ' seeds'} on {dataset}" for i, (dataset, n) in enumerate(found.items()))


def epochs(runs: Sequence[Run]) -> str:
    """``epochs: 100 on digits, 10 on 5,000 images of fashion_mnist``, and which rows count them otherwise."""
    lengths: dict[str, list[int]] = {}
    longer: dict[str, int] = {}
    for run in runs:
        some = f"{run.config.subset:,} images of " if run.config.subset else ""
        lengths.setdefault(some + run.cell.dataset, []).append(run.config.epochs)
        if passes_per_epoch(run.config) > 1:
            longer[run.cell.row] = passes_per_epoch(run.config)
    each = ", ".join(f"{' and '.join(map(str, sorted(set(found))))} on {dataset}" for dataset, found in lengths.items())
    return f"epochs: {each}" + "".join(f"; {row}: of {k} passes over the images each" for row, k in longer.items())
