"""A table of hyperparameters as conf/ composes them for every scale, with a mark where the paper is silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_bench.config.compose import compose_cells
from ssl_bench.config.experiments import Experiment
from ssl_bench.config.options import typed
from ssl_bench.config.schema import Plain, value_at
from ssl_bench.files import csv_text, write_text
from ssl_bench.report import render
from ssl_bench.report.comparison import Table, TableCell

OURS = "*"
HEADING = ("scale", "row", "option", "value", "stated")

Values = dict[tuple[str, str], Plain]  # by scale, with its dataset, and row: the resolved configuration


def values(experiment: Experiment) -> Values:
    """The configuration of every row on every dataset of every scale."""
    cells = [(f"{scale} ({cell.dataset})", cell) for scale in experiment.datasets for cell in experiment.cells(scale)]
    configs = compose_cells([cell for _, cell in cells])
    return {(scale, cell.row): config.as_dict() for (scale, cell), config in zip(cells, configs, strict=True)}


def _scales(found: Values) -> list[str]:
    return list(dict.fromkeys(scale for scale, _ in found))


def table(experiment: Experiment, found: Values) -> Table:
    """Rows of methods, a line for all scales that have the same values; what all share stands below."""
    show = experiment.show
    ranked: dict[str, list[TableCell]] = {}
    for row in experiment.rows:
        by_line: dict[tuple[str, ...], list[str]] = {}
        for scale in (scale for scale in _scales(found) if (scale, row) in found):
            line = tuple(_shown(show, found, scale, row, option) for option in show["columns"].values())
            by_line.setdefault(line, []).append(scale)
        for line, scales in by_line.items():
            ranked[f"{row}, {_in_words(scales, _scales(found))}"] = [TableCell(text) for text in line]
    return Table(
        title=show["title"],
        columns=list(show["columns"]),
        ranked=ranked,
        notes=[
            f"{OURS}: the text of the paper does not state this value; it is our choice.",
            *(note for scale in _scales(found) for note in _shared(experiment, found, scale)),
        ],
    )


def _in_words(some: Sequence[str], known: Sequence[str]) -> str:
    """Those scales, each with the datasets that it is meant for, unless it is meant for all of its own."""
    if len(some) == len(known):
        return "all scales"
    names = dict.fromkeys(one.partition(" ")[0] for one in some)
    whole = {name for name in names if all(one in some for one in known if one.partition(" ")[0] == name)}
    return ", ".join(dict.fromkeys(name if (name := one.partition(" ")[0]) in whole else one for one in some))


def _shown(show: Mapping[str, Any], found: Values, scale: str, row: str, option: str) -> str:
    """The value as one types it, marked where it is ours; a dash where the method has no such option."""
    if option in show["unused"].get(row, ()) or not _has(found[scale, row], option):
        return "–"
    value = _value(found[scale, row], option)
    text = "none" if value is None else f"{value:.3g}" if isinstance(value, float) else typed(value)
    return text if _is_stated(show, found, scale, row, option) else f"{text} {OURS}"


def _is_stated(show: Mapping[str, Any], found: Values, scale: str, row: str, option: str) -> bool:
    """Whether the paper states the value, which is the one at the row's first scale."""
    first = next(name for name, other in found if other == row)
    same = bool(_value(found[scale, row], option) == _value(found[first, row], option))
    return same and row in show["stated"].get(option, ())


def _value(config: Plain, option: str) -> Any:
    """The value of an option, or of one divided by another: ``method.teacher_step / method.proximal``."""
    option, _, divisor = option.partition(" / ")
    value = value_at(config, option)
    return value / value_at(config, divisor) if divisor else value


def _has(config: Plain, option: str) -> bool:
    try:
        _value(config, option)
    except (KeyError, TypeError, ZeroDivisionError):
        return False
    return True


def _shared(experiment: Experiment, found: Values, scale: str) -> Iterator[str]:
    """What most methods share at a scale, then those that have other values."""
    if not experiment.show["shared"]:
        return
    rows = [row for row in experiment.rows if (scale, row) in found]
    shown = {
        (row, name): _shown(experiment.show, found, scale, row, option)
        for row in rows
        for name, option in experiment.show["shared"].items()
    }
    usual = {name: Counter(shown[row, name] for row in rows).most_common(1)[0][0] for name in experiment.show["shared"]}
    yield f"Scale {scale}: {'; '.join(f'{name} {text}' for name, text in usual.items())}."
    others = {
        row: [f"{name} {shown[row, name]}" for name in usual if _unmarked(shown[row, name]) != _unmarked(usual[name])]
        for row in rows
    }
    different = [f"{row}: {', '.join(texts)}" for row, texts in others.items() if texts]
    if different:
        yield f"Other at scale {scale}: {'; '.join(different)}."


def _unmarked(text: str) -> str:
    return text.removesuffix(f" {OURS}")


def results(experiment: Experiment, found: Values) -> Iterator[tuple[object, ...]]:
    """One line of HEADING for every value of the table and below it."""
    show = experiment.show
    for (scale, row), config in found.items():
        for option in (*show["shared"].values(), *show["columns"].values()):
            if _has(config, option) and option not in show["unused"].get(row, ()):
                stated = _is_stated(show, found, scale, row, option)
                yield scale, row, option, typed(_value(config, option)), stated


def write(folder: Path, experiment: Experiment, found: Values) -> None:
    shown = table(experiment, found)
    write_text(folder / "table.md", render.markdown(shown))
    write_text(folder / "table.tex", render.latex(shown))
    write_text(folder / "results.csv", csv_text(HEADING, results(experiment, found)))
    render.picture(folder / "table.png", shown)
