"""Tables and figures as sweeps: which runs belong to one, and how it is shown; ``conf/experiment/<name>.yaml``.

``sweep`` names the runs: every row (a label and the arguments of ``python -m ssl_bench`` that make it), at every column
and under every accounting where there are any, on every dataset of the scale with every seed. ``show`` states how their
records are presented; ``report`` reads it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ssl_bench.config import axes, definitions
from ssl_bench.config.axes import Position
from ssl_bench.config.options import GROUPS
from ssl_bench.config.schema import Config
from ssl_bench.config.settings import items_of, near_or_all, options_in, read_settings, require_known, require_once
from ssl_bench.errors import UserError

T = TypeVar("T")

MANY = {"seed": "seeds", "method": "methods", "dataset": "datasets"}  # option of one run → that chooses among runs
LISTS = tuple(MANY.values())


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    row: str
    dataset: str
    seed: int
    overrides: tuple[str, ...]  # of python -m ssl_bench
    extra: tuple[str, ...] = ()  # those among them that the table or figure does not state itself
    position: Position = axes.NOWHERE  # in the grid; ``row`` is its label

    @property
    def name(self) -> str:
        return f"{self.row} on {self.dataset}, seed {self.seed}"

    @property
    def command(self) -> str:
        return f"python -m ssl_bench {shlex.join(self.overrides)}"


@dataclass(frozen=True)
class Experiment:
    """A table or a figure."""

    name: str
    rows: dict[str, tuple[str, ...]]  # label → overrides
    datasets: dict[str, list[str]]  # scale → names
    seeds: list[int]
    show: dict[str, Any]
    sweep: dict[str, Any] = field(default_factory=dict)  # as its file has it
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)  # scale → what is other there than in ``sweep``
    more_seeds: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # scale → dataset → seeds besides

    def at(self, scale: str) -> dict[str, Any]:
        """``sweep`` as it is at a scale."""
        other = self.scales.get(scale, {})
        rows = {str(label): row for rows in (self.sweep, other) for label, row in rows.get("rows", {}).items()}
        return {**self.sweep, **other, "rows": rows}

    def positions(self, scale: str) -> dict[Position, tuple[str, ...]]:
        """The arguments at every position of the grid at a scale."""
        return axes.positions(self.at(scale))

    def cells(
        self,
        scale: str,
        *,
        methods: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        overrides: Sequence[str] = (),
    ) -> list[Cell]:
        """The runs, dataset by dataset and row by row; ``overrides`` are given to every one of them.

        With ``logger=wandb`` among them, every run names its row and its group, too.

        methods, datasets, seeds: limit or replace those of the experiment.

        Raises:
            UserError: a name is unknown, no run is left, or an override sets for all what an axis sets.
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
        given = {override.lstrip("+") for override in overrides}
        swept = axes.set_by_axes(self.at(scale)) & {override.partition("=")[0] for override in given}
        if swept:
            raise UserError(
                f"{' and '.join(sorted(swept))} is what {self.name} varies, and cannot be set for all its runs."
            )
        rows = {
            position: row
            for position, row in self.positions(scale).items()
            if methods is None or method_of(row) in methods
        }
        keys = {override.partition("=")[0] for override in given}
        for position, row in rows.items():
            for override in row:
                if (key := override.lstrip("+").partition("=")[0]) in keys:
                    way_out = (
                        "methods= chooses rows" if key == "method" else f"leave {key}= out, or copy the definition"
                    )
                    raise UserError(f"{self.name} sets {override} itself, in row {position.label}: {way_out}.")
        watched = "logger=wandb" in given
        grouped = any(override.startswith("logger.group=") for override in given)
        group = [f"logger.group={self.group(scale)}"] if watched and not grouped else []
        names = {at: [f'logger.row="{at.label}"'] if watched else [] for at in rows}  # quoted: labels have commas
        more = self.more_seeds.get(scale, {})
        found = [
            Cell(
                position.label,
                dataset,
                seed,
                (*row, f"dataset={dataset}", f"scale={scale}", f"seed={seed}", *overrides, *group, *names[position]),
                tuple(overrides),
                position,
            )
            for dataset in (self.datasets[scale] if datasets is None else datasets)
            for seed in (
                self.scales.get(scale, {}).get("seeds", self.seeds) + more.get(dataset, []) if seeds is None else seeds
            )
            for position, row in rows.items()
        ]
        if not found:
            raise UserError(f"{self.name} has no run at scale={scale} under these options.")
        return found

    @property
    def protocols(self) -> Sequence[str]:
        """Those of which figures are shown."""
        found: Sequence[str] = self.show.get("protocols") or [self.show["protocol"]]
        return found

    def group(self, scale: str) -> str:
        """What W&B calls the runs together, unless ``logger.group`` is set."""
        return f"{self.name}-{scale}"


def require_scored(experiment: Experiment, configs: Sequence[Config]) -> None:
    """UserError where the runs that are asked for leave out what is shown."""
    key = "curves" if experiment.show["kind"] in ("curves", "trials") else "protocols"
    of_all = set.intersection(*(set(getattr(config.evaluation, key)) for config in configs))
    if "linear" in of_all:
        of_all.add("linear_top5")  # which comes with it where there are more than ten classes
    left = [name for name in experiment.protocols if name not in of_all]
    if left:
        raise UserError(
            f"{experiment.name} shows {' and '.join(left)}, which evaluation.{key} leaves out: name it there."
        )
    if "projector" in experiment.show.get("networks", ()) and not any(one.evaluation.projector for one in configs):
        raise UserError(
            f"{experiment.name} shows the projector, which no run is scored by: set evaluation.projector=true."
        )


def read_overrides(overrides: Iterable[str], *files: str) -> tuple[dict[str, Any], list[str]]:
    """The options of ``files`` of conf/ as the overrides set them, and the other overrides, which all runs get.

    ``seeds`` is a list of int or None, ``methods`` and ``datasets`` are lists of str or None.

    Raises:
        UserError: for an override that is not ``key=value``, is of one run alone or nearly an option of the ``files``;
            or a value that is not allowed.
    """
    file_of = {key: file for file in files for key in options_in(file)}
    own: dict[str, list[str]] = {file: [] for file in files}
    lists: dict[str, list[str]] = {}
    others: list[str] = []
    given: dict[str, str] = {}
    for override in (override.removeprefix("++") for override in overrides):  # which Hydra allows and nothing needs
        key, equals, value = override.partition("=")
        if key in LISTS:
            require_once(given, override)
        if not equals:
            raise UserError(f"{override} is not of the form key=value{near_or_all(override, file_of)}")
        if key in MANY:
            raise UserError(f"{override} is an option of one run: a sweep takes {MANY[key]}={value}.")
        if key == "experiment":
            raise UserError(f"{override} is no option of a sweep: name the table or figure alone.")
        if key not in file_of:
            others.append(override)
        elif key not in LISTS:
            own[file_of[key]].append(override)
        elif value != "null":  # a list of one looks like a number
            lists[key] = list(dict.fromkeys(items_of(value)))
    require_known(others, file_of)
    settings: dict[str, Any] = {}
    for file in files:
        settings |= read_settings(file, own[file])
    settings |= lists
    seeds = settings["seeds"]
    if seeds and any(not seed.isdecimal() or int(seed) >= 2**32 for seed in seeds):
        raise UserError(
            f"seeds={','.join(seeds)} is not allowed: seeds are whole numbers from 0 to 4294967295, as in seeds=0,1,2."
        )
    settings["seeds"] = None if seeds is None else list(dict.fromkeys(map(int, seeds)))
    return settings, others


def passes_per_epoch(config: Config) -> int:
    """Passes over the images that the method calls an epoch: K in CLBO's own accounting.

    As ``Method.passes_per_epoch``, without building the method.
    """
    method = config.method.options
    several = method.get("epoch_unit") == "teacher" and method["lookahead_batch"] == "fresh"
    return int(method["lookahead"]) if several else 1


def of_each(cells: Sequence[Cell], work: Callable[[Cell], T]) -> list[T]:
    """``work`` of every cell; a UserError that some cells raise and others do not names its row."""
    found = []
    for cell in cells:
        try:
            found.append(work(cell))
        except UserError as error:
            if found or any(_works(work, other) for other in cells if other.row != cell.row):
                raise UserError(f"row {cell.row}: {error}") from None
            raise
    return found


def _works(work: Callable[[Cell], object], cell: Cell) -> bool:
    with suppress(UserError):
        work(cell)
        return True
    return False


def names() -> list[str]:
    """The experiments that have runs."""
    return [name for name in GROUPS["experiment"] if is_sweep(name) and not _shows_options(name)]


def _shows_options(name: str) -> bool:
    show = definitions.read(name).get("show")
    return isinstance(show, dict) and show.get("kind") == "options"


def require_runs(experiment: Experiment) -> None:
    """UserError for one that shows options alone."""
    if experiment.show["kind"] == "options":
        name = experiment.name
        raise UserError(f"{name} is made of conf/ alone and has no runs: python -m ssl_bench report {name} shows it.")


def without_runs() -> list[str]:
    """The experiments that show options alone."""
    known = names()
    return [name for name in GROUPS["experiment"] if is_sweep(name) and name not in known]


def is_sweep(name: str) -> bool:
    return name in GROUPS["experiment"] and "sweep" in definitions.read(name)


def find(name: str) -> Experiment:
    """The experiment called ``name``, or the one that the file ``name`` describes, which ends in .yaml.

    Raises:
        UserError: if there is none, or the file describes none.
    """
    file = name.endswith(".yaml")
    if name.endswith(".yml"):
        raise UserError(f"{name} is not read, for such files end in .yaml: rename it.")
    if not file and not is_sweep(name):
        raise UserError(f"there is no table or figure {name!r}{near_or_all(name, names())}")
    found = definitions.read_file(Path(name)) if file else definitions.read(name)
    sweep, show = definitions.checked(name if file else f"conf/experiment/{name}.yaml", found)
    return Experiment(
        name=Path(name).stem if file else name,
        rows=axes.labelled(sweep["rows"]),
        datasets=sweep["datasets"],
        seeds=sweep["seeds"],
        show=show,
        sweep=sweep,
        scales=sweep.get("scales", {}),
        more_seeds=sweep.get("more_seeds", {}),
    )


def method_of(row: Sequence[str]) -> str:
    """The method among the arguments of a row."""
    return next(override.partition("=")[2] for override in row if override.startswith("method="))
