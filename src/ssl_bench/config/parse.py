"""From a command line's arguments to keys and values, by Hydra's grammar, and to the single runs of several values."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from ssl_bench.commands import COMMANDS
from ssl_bench.config import experiments
from ssl_bench.config.options import CHOICES, GROUPS, Option, identities, nearest
from ssl_bench.errors import UserError

# Of a list: anything up to a comma that stands in no quotes and no brackets.
PIECE = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|\\.|[^,])+""")
COMPARED = ("method", "dataset", "scale")  # options by which runs are compared and not tuned
REPEATED = ("seed", "dataset.fold")  # of runs whose figures are averaged
FINITE = (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP, ValueType.RANGE_SWEEP)


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's reading of the arguments; UserError for what is no ``key=value`` or names a key a second time."""
    parser = OverridesParser.create()
    parsed: dict[str, Override] = {}
    for argument in overrides:
        key, equals, value = argument.partition("=")
        if re.match(r"~|\+(?!\+)", key):
            raise UserError(f"{argument}: options are neither added nor removed; set one of those that --help lists.")
        if argument.startswith("-"):
            raise UserError(f"{argument} is unknown: options are set as key=value, as in scale=cpu; --help lists them.")
        if argument in COMMANDS:
            raise UserError(f"{argument} is a command, which comes first: python -m ssl_bench {argument} …")
        if not equals or not re.fullmatch(r"(\+\+)?\w+([./]\w+)*", key, re.ASCII):
            groups = [f"{group}={argument}" for group, choices in GROUPS.items() if argument in choices]
            hint = nearest(argument, COMMANDS) or (f"; did you mean {groups[0]}?" if groups else ", as in method=byol.")
            raise UserError(f"{argument!r} is not of the form key=value{hint}")
        try:
            override = parser.parse_override(argument)
        except (HydraException, ValueError):
            # What has no meaning in Hydra's grammar is text, like a path with an umlaut.
            override = parser.parse_override(f"{key}={QuotedString(value, Quote.double).with_quotes()}")
        if override.key_or_group in parsed:
            first = parsed[override.key_or_group].input_line
            raise UserError(
                f"{override.key_or_group} is set twice, by {first} and by {argument}: leave one of them out."
            )
        parsed[override.key_or_group] = override
    return list(parsed.values())


def value_of(override: Override, option: Option | None = None) -> Any:
    """The value as Python has it; for an ``option`` of any text as it was typed, so that 2024_01 stays a name."""
    value = None if override.is_sweep_override() else override.value()
    if option is not None and option.is_text and not (isinstance(value, str) or _typed(override) == "null"):
        return _typed(override)
    if override.is_sweep_override():
        raise UserError(f"{override.input_line} names several values: add -m to run each, or brackets for a list.")
    return value


def _typed(override: Override) -> str:
    """The value as it stands on the command line."""
    return str(override.input_line).partition("=")[2].strip()


def combinations(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The combinations of a multirun's values, each with one value of every option."""
    axes = []
    for override in parse(overrides):
        axes.append(_listed(override) if override.is_sweep_override() else [override.input_line or ""])
    return map(list, itertools.product(*axes))


def _listed(override: Override) -> list[str]:
    """One override for each of the values that are listed."""
    values = _values(override) if override.value_type in FINITE else []
    if not values:
        raise UserError(f"{override.input_line} names no single values: list them, as in seed=0,1,2.")
    return [f"{override.get_key_element()}={value}" for value in values]


def cells(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The runs of a multirun, each as its overrides: of a table's or figure's combination all its runs."""
    return (run for combination in combinations(overrides) for run in _runs_of(combination))


def starting_points(overrides: Sequence[str]) -> Iterator[str]:
    """One run of those that a sweeper chooses among: the first value of every list, the lower end of an interval."""
    for override in parse(overrides):
        line = override.input_line or ""
        if not override.is_sweep_override():
            yield line
        elif isinstance(interval := override.value(), IntervalSweep):
            yield f"{override.get_key_element()}={interval.start}"
        else:
            yield _listed(override)[0]


def by_key(options: Iterable[str]) -> dict[str, str]:
    """The values of ``key=value`` arguments as they were typed."""
    return dict(option.lstrip("+").partition("=")[::2] for option in options)


def varying(runs: Iterable[Iterable[str]]) -> list[str]:
    """The options in which runs differ; a run is given by its ``key=value`` arguments."""
    chosen = [by_key(run) for run in runs]
    return [key for key in dict.fromkeys(key for one in chosen for key in one) if len({o.get(key) for o in chosen}) > 1]


def tuned_options(runs: Iterable[Iterable[str]]) -> list[str]:
    """Those of them that validation images are to choose; others are compared or repeated, or change no figure."""
    left_out = {*COMPARED, *REPEATED, *(key for key, identity in identities().items() if identity == "no")}
    return [key for key in varying(runs) if key not in left_out]


def _runs_of(overrides: list[str]) -> list[list[str]]:
    """The runs of the table or figure that ``overrides`` name; themselves if they name none."""
    given = by_key(overrides)
    name = given.get("experiment", "none")
    if not experiments.is_sweep(name):
        return [overrides]
    experiment = experiments.find(name)
    experiments.require_runs(experiment)
    if "method" in given:
        raise UserError(
            f"method={given['method']}: the rows of {name} have methods of their own; choose among them by "
            f"python -m ssl_bench sweep {name} methods={given['method']}."
        )
    if not given.get("seed", "0").isdecimal():
        raise UserError(f"seed={given['seed']} is not allowed: seed is a whole number of at least 0.")
    chosen = ("experiment", "scale", "dataset", "seed")
    found = experiment.cells(
        given.get("scale", CHOICES["scale"]),
        datasets=[given["dataset"]] if "dataset" in given else None,
        seeds=[int(given["seed"])] if "seed" in given else None,
        overrides=[override for override in overrides if override.lstrip("+").partition("=")[0] not in chosen],
    )
    return [list(cell.overrides) for cell in found]


def _values(override: Override) -> list[str]:
    """The values of a finite sweep, as they were typed where they are a plain list: 2024_01 may name a folder."""
    values = list(override.sweep_string_iterator())
    typed = [piece.strip() for piece in PIECE.findall(_typed(override))]
    plain = override.value_type == ValueType.SIMPLE_CHOICE_SWEEP and len(typed) == len(values)
    return typed if plain else values
