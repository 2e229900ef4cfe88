"""The finished runs of a store as rows of plain values: chosen, sorted, compared, or as a pandas frame."""

from __future__ import annotations

import operator
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssl_bench.conditions import require_libraries
from ssl_bench.config.defaults import leaves
from ssl_bench.config.options import nearest, typed
from ssl_bench.config.settings import near_or_all, plain_value
from ssl_bench.errors import UserError
from ssl_bench.files import csv_text, require_writable, write_text
from ssl_bench.report import records
from ssl_bench.results.fingerprint import LEFT_OUT

if TYPE_CHECKING:
    import pandas

FIRST = ("fingerprint", "method", "dataset", "scale", "seed")
ABOUT = ("evaluated", "precision", "device", "student_steps", "train_seconds", "images_per_second")
COLUMNS = 8  # runs that are compared side by side
NAMED = 3  # files that are no records
WIDE = 100  # letters of a terminal; headings are folded in a narrower one

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


class Row(dict[str, Any]):
    """Figures and options of a run by name."""

    def __init__(self, values: Mapping[str, Any], options: tuple[str, ...]) -> None:
        super().__init__(values)
        self.options = options  # which of the names are options


@dataclass(frozen=True)
class Condition:
    """A figure or option, an operator and a value; or the start of a fingerprint, whose operator is empty."""

    key: str
    sign: str
    value: Any

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether the row fulfils it; a run without the figure fulfils no comparison but ``!=``."""
        own = row.get(self.key)
        if self.sign in ("=", "!="):
            same = own == self.value or typed(own) == typed(self.value)
            return same == (self.sign == "=")
        if own is None:
            return False
        if not _is_number(own):
            raise UserError(f"{self.key}{self.sign}{self.value}: {self.key} is {typed(own)}, which is no number.")
        return OPERATORS[self.sign](own, self.value)


def condition(word: str) -> Condition:
    """What ``knn1>80`` or the start of a fingerprint asks for; UserError for anything else."""
    found = re.fullmatch(r"([\w./]+)(!=|>=|<=|=|>|<)(.+)", word)
    if not found:
        if re.fullmatch(r"[0-9a-f]{1,12}", word):
            return Condition("fingerprint", "", word)
        raise UserError(f"{word!r} is no condition as method=byol or 'knn1>80', and no fingerprint of a run.")
    key, sign, text = found.groups()
    value = plain_value(text, text_only=key == "fingerprint")
    if sign not in ("=", "!=") and not _is_number(value):
        raise UserError(f"{word}: {text} is no number.")
    return Condition(key, sign, value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def rows(runs_dir: Path, committed: str | None) -> tuple[list[Row], list[str]]:
    """A row for each run of ``runs_dir`` and of the folders ``committed``; and why files were left out."""
    store = records.read(runs_dir, committed)
    found: dict[str, records.StoredRecord] = {}
    for entry in (entry for entries in store.entries.values() for entry in entries):
        found.setdefault(entry.record.fingerprint, entry)  # those of runs_dir come first
    return [_row(entry) for entry in found.values()], store.skipped


def _row(entry: records.StoredRecord) -> Row:
    record = entry.record
    figures: dict[str, Any] = {key: getattr(record, key) for key in FIRST}
    figures |= record.results[record.evaluated]
    figures["validation"] = record.last_on_validation
    for network, scores in record.results.items():
        figures |= {f"{network}/{protocol}": value for protocol, value in scores.items()}
    figures |= {key: getattr(record, key) for key in ABOUT}
    options = {key: value for key, value in leaves(record.config) if key not in figures}
    return Row(figures | options | {"path": str(entry.path)}, tuple(options))


def _columns(found: Sequence[Row]) -> list[str]:
    """All keys: first what tells runs apart at a glance, then figures, then options."""
    options = dict.fromkeys(key for row in found for key in row.options)
    keys = dict.fromkeys(key for row in found for key in row)
    return [*dict.fromkeys([*FIRST, *(key for key in keys if key not in options)]), *options]


def chosen(found: Sequence[Row], conditions: Sequence[Condition]) -> list[Row]:
    """The rows that fulfil all conditions; UserError for a figure or option that none of them has."""
    known = dict.fromkeys(key for row in found for key in row)
    for one in conditions:
        if found and one.key not in known:
            raise UserError(f"no run has {one.key}{near_or_all(one.key, known)}")
    named = tuple(one.value for one in conditions if not one.sign)
    rest = [one for one in conditions if one.sign]
    kept = [row for row in found if not named or row["fingerprint"].startswith(named)]
    return [row for row in kept if all(one.holds(row) for one in rest)]


def in_order(found: Sequence[Row], sort: str | None) -> list[Row]:
    """Sorted by a figure or option, ``-`` for highest first; runs without it come last."""
    if sort is None:
        return sorted(found, key=lambda row: tuple(row[key] for key in FIRST[1:]))
    key, falling = sort.removeprefix("-"), sort.startswith("-")
    known = dict.fromkeys(key for row in found for key in row)
    if found and key not in known:
        raise UserError(f"sort={sort}: no run has {key}{near_or_all(key, known)}")
    there = [row for row in found if row.get(key) is not None]
    numbers = all(_is_number(row[key]) for row in there)
    there.sort(key=lambda row: row[key] if numbers else typed(row[key]), reverse=falling)
    return there + [row for row in found if row.get(key) is None]


def show(
    runs_dir: Path,
    conditions: Sequence[Condition],
    *,
    records: str | None,
    sort: str | None,
    compare: bool,
    out: str | None,
) -> None:
    """Print the runs that fulfil the conditions; UserError where there is none."""
    if out and Path(out).suffix != ".csv":
        raise UserError(f"out={out} is to be a file of comma-separated values: name it as in out=runs.csv.")
    found, skipped = rows(runs_dir, records)
    kept = in_order(chosen(found, conditions), sort)
    console = Console()
    if skipped:
        console.print(f"warning: {_left_out(skipped)}", highlight=False, markup=False, soft_wrap=True)
    if not kept:
        raise UserError(_none(found, conditions, f"{runs_dir}{f' and {records}' if records else ''}"))
    if compare and len(kept) > COLUMNS:
        raise UserError(f"compare=true shows {COLUMNS} runs at most, and these are {len(kept)}: name or filter them.")
    console.print(_side_by_side(kept) if compare else _listed(kept, console.width))
    if out:
        require_writable(Path(out).parent, f"out={out}")
        keys = _columns(kept)
        cells = ([typed(row[key]) if row.get(key) is not None else "" for key in keys] for row in kept)
        write_text(Path(out), csv_text(keys, cells))
        console.print(out, highlight=False, markup=False, soft_wrap=True)


def _none(found: Sequence[Row], conditions: Sequence[Condition], where: str) -> str:
    """Why no run is shown."""
    if not found:
        return f"{where} has no finished run: train one, or set runs_dir or records to where there are some."
    for one in conditions:
        if not one.sign and not any(row["fingerprint"].startswith(one.value) for row in found):
            return f"no run of {where} has a fingerprint that begins with {one.value}."
        if one.sign == "=" and not any(one.holds(row) for row in found):
            near = nearest(typed(one.value), {typed(row[one.key]) for row in found if one.key in row})
            return f"no run of {where} has {one.key}={typed(one.value)}{near or '.'}"
    return f"none of the {len(found)} finished runs of {where} fulfils all conditions."


def _left_out(skipped: Sequence[str]) -> str:
    more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return f"{len(skipped)} file(s) left out: {'; '.join(skipped[:NAMED])}{more}"


def differing(found: Sequence[Row], keys: Sequence[str]) -> list[str]:
    """The keys whose values are not the same in all rows."""
    return [key for key in keys if len({typed(row.get(key)) for row in found}) > 1]


def _listed(found: Sequence[Row], width: int) -> Table:
    figures = dict.fromkeys(key for row in found for key in row if f"{row['evaluated']}/{key}" in row)
    particular = _particular(found)
    same = [key for key in FIRST[1:] if len(found) > 1 and key not in differing(found, FIRST)]
    first = [key for key in FIRST if key not in same]
    of = ", ".join(f"{key}={found[0][key]}" for key in same)
    count = f"{len(found)} run{'s' if len(found) > 1 else ''}"
    table = Table(
        title=f"{count}{f' of {of}' if of else ''}: % of test images",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    for key in first:
        table.add_column(key, no_wrap=True)
    if any(particular):
        table.add_column("options unlike most", overflow="fold", min_width=12)
    for key in (*figures, "validation"):
        table.add_column(key.replace("_", " "), justify="right", overflow="fold", width=6 if width < WIDE else None)
    for row, own in zip(found, particular, strict=True):
        options = [", ".join(f"{key}={_brief(row.get(key))}" for key in own)] if any(particular) else []
        figures_of = (_cell(row, key) for key in (*figures, "validation"))
        table.add_row(*(_cell(row, key) for key in first), *options, *figures_of)
    return table


def _particular(found: Sequence[Row]) -> list[list[str]]:
    """Of each run the options whose value is not the most frequent one of its method, dataset and scale."""
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in found:
        alike.setdefault(_kind(row), []).append(row)
    usual: dict[tuple[Any, ...], dict[str, str]] = {}
    for kind, some in alike.items():
        keys = dict.fromkeys(key for row in some for key in row.options if key not in LEFT_OUT)
        values = {key: Counter(typed(row.get(key)) for row in some) for key in keys}
        usual[kind] = {key: counts.most_common(1)[0][0] for key, counts in values.items() if len(counts) > 1}
    return [[key for key, value in usual[_kind(row)].items() if typed(row.get(key)) != value] for row in found]


def _kind(row: Row) -> tuple[Any, ...]:
    return row["method"], row["dataset"], row["scale"]


def _brief(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else escape(typed(value))


def _side_by_side(found: Sequence[Row]) -> Table:
    table = Table(title="what differs")
    table.add_column("")
    for row in found:
        table.add_column(row["fingerprint"])
    for key in differing(found, [key for key in _columns(found) if key not in ("path", "fingerprint", *LEFT_OUT)]):
        table.add_row(key, *(_cell(row, key) for row in found))
    return table


def _cell(row: Row, key: str) -> str:
    """A figure with one decimal; an option as one types it; a dash where the run has none."""
    if key not in row or (row[key] is None and key not in row.options):
        return "–"
    return f"{row[key]:.1f}" if isinstance(row[key], float) and key not in row.options else escape(typed(row[key]))


def load_runs(runs_dir: str | Path = "runs", *, records: str | None = None) -> pandas.DataFrame:
    """A row for each finished run, with figures in percent of test images and all options by dotted key.

    Columns: ``fingerprint method dataset scale seed``; the protocols, of the network that the method deploys;
    ``validation``; ``<network>/<protocol>``; what else the record measures; ``path``; the options.

    records: a pattern of folders of committed records, as ``experiments/**/records``. Files that are no record
    are named in a warning. Raises UserError where pandas is missing.
    """
    require_libraries("load_runs", ["pandas"], "pandas")
    import pandas

    found, skipped = rows(Path(runs_dir), records)
    if skipped:
        warnings.warn(_left_out(skipped), stacklevel=2)
    return pandas.DataFrame(in_order(found, None), columns=_columns(found))
