"""Tables and figures as sweeps: which runs belong to one, and how it is shown; ``conf/experiment/<name>.yaml``.

``sweep`` names the runs: every row (a label and the words of ``python -m ssl_bench`` that make it) on every dataset
of the scale with every seed. ``show`` states how their records are presented; ``report`` reads it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ssl_bench.config import sources
from ssl_bench.config.options import GROUPS, near_or_all, options_in, read_settings
from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError

PROTOCOLS = {"protocols": ["knn1", "linear"]}
KINDS: dict[str, dict[str, Any]] = {  # of show, and what is shown unless the file sets it
    "table": {**PROTOCOLS, "ranked": None, "published": False},  # ranked null: all rows
    "curves": {"protocol": "knn1", "network": "student", "panels": None},  # panels null: one
    "calibration": PROTOCOLS,
    "trials": PROTOCOLS,
    "expected": PROTOCOLS,
}
KEYS = ("sweep.rows", "sweep.datasets", "sweep.seeds", "show.kind")  # that every experiment has
LISTS = ("seeds", "methods", "datasets")  # options that choose among the runs


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    row: str
    dataset: str
    seed: int
    words: tuple[str, ...]  # of python -m ssl_bench
    extra: tuple[str, ...] = ()  # those among them that the table or figure does not state itself

    @property
    def name(self) -> str:
        return f"{self.row} on {self.dataset}, seed {self.seed}"

    @property
    def command(self) -> str:
        return f"python -m ssl_bench {shlex.join(self.words)}"


@dataclass(frozen=True)
class Experiment:
    """A table or a figure."""

    name: str
    rows: dict[str, tuple[str, ...]]  # label → words
    datasets: dict[str, list[str]]  # scale → names
    seeds: list[int]
    show: dict[str, Any]
    more_seeds: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # scale → dataset → seeds besides

    def cells(
        self,
        scale: str,
        *,
        methods: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        words: Sequence[str] = (),
    ) -> list[Cell]:
        """The runs, dataset by dataset and row by row; ``words`` are given to every one of them.

        With ``logger=wandb`` among them, every run names its row and its group, too.

        methods, datasets, seeds: limit or replace those of the experiment.

        Raises:
            UserError: a name is unknown, or no run is left.
        """
        if scale not in self.datasets:
            raise UserError(f"{self.name} has no runs at scale={scale}{near_or_all(scale, sorted(self.datasets))}")
        own = {method_of(row) for row in self.rows.values()}
        for method in methods or ():
            if method not in own:
                raise UserError(f"{self.name} has no row of method={method}{near_or_all(method, sorted(own))}")
        for dataset in datasets or ():
            if dataset not in GROUPS["dataset"]:
                raise UserError(f"dataset={dataset} is unknown{near_or_all(dataset, GROUPS['dataset'])}")
        rows = {label: row for label, row in self.rows.items() if methods is None or method_of(row) in methods}
        given = {word.lstrip("+") for word in words}
        watched = "logger=wandb" in given
        grouped = any(word.startswith("logger.group=") for word in given)
        group = [f"logger.group={self.group(scale)}"] if watched and not grouped else []
        names = {label: [f'logger.row="{label}"'] if watched else [] for label in rows}  # quoted: labels have commas
        more = self.more_seeds.get(scale, {})
        found = [
            Cell(
                label,
                dataset,
                seed,
                (*row, f"dataset={dataset}", f"scale={scale}", f"seed={seed}", *words, *group, *names[label]),
                tuple(words),
            )
            for dataset in (self.datasets[scale] if datasets is None else datasets)
            for seed in (self.seeds + more.get(dataset, []) if seeds is None else seeds)
            for label, row in rows.items()
        ]
        if not found:
            raise UserError(f"{self.name} has no run at scale={scale} under these options.")
        return found

    def group(self, scale: str) -> str:
        """What W&B calls the runs together, unless ``logger.group`` is set."""
        return f"{self.name}-{scale}"


def read_words(words: Iterable[str], *files: str) -> tuple[dict[str, Any], list[str]]:
    """The options of ``files`` of conf/ as the words set them, and the other words, which are given to all runs.

    ``seeds`` is a list of int or None, ``methods`` and ``datasets`` are lists of str or None.

    Raises:
        UserError: for a word that is not ``key=value``, or a value that is not allowed.
    """
    file_of = {key: file for file in files for key in options_in(file)}
    own: dict[str, list[str]] = {file: [] for file in files}
    lists: dict[str, list[str]] = {}
    others: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word} is not of the form key=value{near_or_all(word, file_of)}")
        if key not in file_of:
            others.append(word)
        elif key not in LISTS:
            own[file_of[key]].append(word)
        elif value != "null":  # a list of one looks like a number
            lists[key] = list(dict.fromkeys(item.strip() for item in value.strip("[]").split(",") if item.strip()))
    settings: dict[str, Any] = {}
    for file in files:
        settings |= read_settings(file, own[file])
    settings |= lists
    seeds = settings["seeds"]
    if seeds and any(not seed.isdecimal() or int(seed) >= 2**32 for seed in seeds):
        raise UserError(
            f"seeds={','.join(seeds)} is not allowed: seeds are whole numbers of at least 0, as in seeds=0,1,2."
        )
    settings["seeds"] = None if seeds is None else [int(seed) for seed in seeds]
    return settings, others


def passes_per_epoch(config: Config) -> int:
    """Passes over the images that the method calls an epoch: K in CLBO's own accounting.

    As ``Method.passes_per_epoch``, without building the method.
    """
    method = config.method.options
    several = method.get("epoch_unit") == "teacher" and method["lookahead_batch"] == "fresh"
    return int(method["lookahead"]) if several else 1


def names() -> list[str]:
    """The experiments that are sweeps."""
    return [name for name in GROUPS["experiment"] if "sweep" in _read(name)]


def is_sweep(name: str) -> bool:
    return name in GROUPS["experiment"] and "sweep" in _read(name)


def find(name: str) -> Experiment:
    """The experiment called ``name``, or the one that the file ``name`` describes, which ends in .yaml.

    Raises:
        UserError: if there is none, or the file describes none.
    """
    file = name.endswith(".yaml")
    if not file and not is_sweep(name):
        raise UserError(f"there is no table or figure {name!r}{near_or_all(name, names())}")
    found = _read_file(Path(name)) if file else _read(name)
    where, sweep = name if file else f"conf/experiment/{name}.yaml", found["sweep"]
    _require_known(where, "", found, ("sweep", "show"))
    _require_known(where, "sweep.", sweep, ("rows", "datasets", "seeds", "more_seeds"))
    return Experiment(
        name=Path(name).stem if file else name,
        rows={label: tuple(words.split()) for label, words in sweep["rows"].items()},
        datasets=sweep["datasets"],
        seeds=sweep["seeds"],
        show=_shown(found["show"], list(sweep["rows"]), where),
        more_seeds=sweep.get("more_seeds", {}),
    )


def _require_known(file: str, above: str, tree: Iterable[str], known: Sequence[str]) -> None:
    """UserError for a key below ``above`` that a table's or figure's file does not have."""
    for key in tree:
        if key not in known:
            raise UserError(f"{file}: {above}{key} is unknown{near_or_all(key, known)}")


def _shown(show: dict[str, Any], rows: list[str], file: str) -> dict[str, Any]:
    """What is shown, with what the file leaves out: title and protocols, and that every row is ranked."""
    if show["kind"] not in KINDS:
        raise UserError(f"{file}: show.kind is {' or '.join(KINDS)}, not {show['kind']}.")
    found = {"title": Path(file).stem, **KINDS[show["kind"]]}
    _require_known(file, "show.", show, ("kind", *found))
    found |= show
    if show["kind"] == "table" and found["ranked"] is None:
        found["ranked"] = rows
    return found


def _read(name: str) -> dict[str, Any]:
    return sources.load(f"experiment/{name}.yaml")


def _read_file(file: Path) -> dict[str, Any]:
    """The experiment that a file outside of conf/ describes; its name must be that of no other."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({getattr(error, 'strerror', None) or 'it is no text'}).") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())}.") from None
    if file.stem in GROUPS["experiment"]:
        raise UserError(f"{file} has the name of experiment={file.stem}: rename the file.")
    parts = {part: found.get(part) if isinstance(found, dict) else None for part in ("sweep", "show")}
    there = {f"{part}.{key}" for part, tree in parts.items() if isinstance(tree, dict) for key in tree if tree[key]}
    missing = [key for key in KEYS if key not in there]
    if missing:
        raise UserError(f"{file} describes no table or figure: {' and '.join(missing)} is missing.")
    return dict(found)


def method_of(row: Sequence[str]) -> str:
    """The method among the arguments of a row."""
    return next(word.partition("=")[2] for word in row if word.startswith("method="))
