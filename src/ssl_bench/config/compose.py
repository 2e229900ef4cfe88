"""From the command line to plain numbers, quickly (no torch).

Every argument is checked before anything else is imported: keys against those of conf/, which ``defaults`` reads,
values against the contract that ``options`` reads there. What leaves this file is one frozen object of plain numbers,
strings and lists with every reference resolved.
"""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_bench.config import experiments
from ssl_bench.config.composition import read_ahead
from ssl_bench.config.defaults import COUNTED, blaming, check, chosen_files, file_of, leaves, overrides_of, plain
from ssl_bench.config.options import (
    CHOICES,
    GROUPS,
    OPEN,
    Option,
    choices_with,
    identities,
    is_open,
    nearest,
    typed,
)
from ssl_bench.config.parse import parse, value_of
from ssl_bench.config.schema import Config, Plain, put, value_at
from ssl_bench.config.sources import AUTO, texts_of_own
from ssl_bench.errors import UserError

_OF_KIND: dict[tuple[str, ...], Config] = {}  # of cells, by their overrides without the seed; tables share runs


def compose(overrides: Sequence[str] = (), *, certified: bool = False) -> Config:
    """The resolved configuration for ``key=value`` overrides.

    certified: with the values that the method's block ``check`` sets for its certificate.

    Raises UserError, in one sentence, for unknown keys and groups, wrong types, values out of range and commas that
    need ``-m``.
    """
    found, _, choices = _compose(parse(overrides), certified=certified)
    try:
        return Config.from_dict(found)
    except KeyError as error:
        group, _, key = error.args[0].partition(".")
        raise UserError(f"{file_of(group, choices)}: {key} is missing.") from None


def composed(overrides: Sequence[str]) -> tuple[Plain, dict[str, Option], dict[str, str]]:
    """The resolved configuration, the options it has, and the file chosen for each group."""
    return _compose(parse(overrides))


def options_for(config: Plain) -> list[str]:
    """The ``key=value`` that give a configuration as `Config.as_dict` does, those at their defaults left out.

    Raises UserError where its method or dataset is unknown here.
    """
    chosen = {
        "method": config["method"]["name"],
        "dataset": config["dataset"]["name"],
        "scale": config["scale"]["name"],
    }
    network = config["backbone"]["name"]
    if network in GROUPS["backbone"] and network != config["scale"].get("backbone"):
        chosen["backbone"] = network
    overrides = [*overrides_of(chosen), f"seed={config['seed']}"]
    if config.get("recipe", "shared") != "shared":
        overrides.append(f"recipe={config['recipe']}")
    defaults, options, _ = composed(overrides)
    if views := views_of(config, options):
        overrides.append(views)
        defaults, options, _ = composed(overrides)
    overrides = [override for override in overrides if override.partition("=")[::2] not in CHOICES.items()]
    known, free = dict(leaves(defaults)), {key for key, identity in identities().items() if identity == "no"}
    settable = ((key, value) for key, value in leaves(config) if key in options or is_open(key, value))
    differing = {key: value for key, value in settable if key not in known or known[key] != value}
    return overrides + [f"{key}={typed(value)}" for key, value in differing.items() if key not in free]


def views_of(config: Plain, known: Container[str]) -> str | None:
    """``augment=…`` of a configuration that has options of views beside the ``known`` ones; None where it has none."""
    lost = (key for key, value in leaves(config) if key.startswith("augment.") and key not in known)
    return next((choice for key in lost for choice in choices_with(key)), None)


def compose_cells(cells: Sequence[experiments.Cell]) -> list[Config]:
    """The resolved configuration of every cell; those that differ by their seed alone are composed once."""
    follows_seed = re.compile(r"\$\{\s*(oc\.\w+:)?\s*\.*seed\s*[},]")
    own_follows = any(follows_seed.search(text) for text in texts_of_own())
    overrides = dict.fromkeys(override for cell in cells for override in cell.overrides)
    read_ahead((group, choice) for group, _, choice in (override.partition("=") for override in overrides))

    def of_kind(cell: experiments.Cell) -> Config:
        kind = tuple(override for override in cell.overrides if override != f"seed={cell.seed}")
        if own_follows or any(map(follows_seed.search, kind)):
            return compose(cell.overrides)
        if kind not in _OF_KIND:
            _OF_KIND[kind] = compose(cell.overrides)
        return replace(_OF_KIND[kind], seed=cell.seed)

    return experiments.of_each(cells, of_kind)


def _compose(parsed: Sequence[Override], *, certified: bool = False) -> tuple[Plain, dict[str, Option], dict[str, str]]:
    """The resolved configuration, the options it has, and the file chosen for each group."""
    groups = {override.key_or_group: value_of(override) for override in parsed if override.key_or_group in GROUPS}
    for group, choice in groups.items():
        if choice not in GROUPS[group]:
            known = ", ".join(GROUPS[group])
            raise UserError(
                f"{group}={typed(choice)} is unknown{nearest(str(choice), GROUPS[group]) or '.'} Known: {known}."
            )
    if experiments.is_sweep(str(groups.get("experiment", "none"))):
        name = groups["experiment"]
        experiments.require_runs(experiments.find(name))
        raise UserError(f"experiment={name} is many runs: add -m, or run python -m ssl_bench sweep {name}.")
    defaults, options, choices, blocks = chosen_files(overrides_of(groups))
    settings = _settings((override for override in parsed if override.key_or_group not in GROUPS), options)
    check(settings, options, choices)
    config = copy.deepcopy(defaults)
    for key, value in settings.items():
        _set(config, key, value)
    counted = {
        "sets": True,
        "original": options["recipe"].read(_get(config, "recipe")) == "original",
        "check": certified,
    }
    set_by: dict[str, tuple[str, str]] = {}
    for group, block in (named for named in COUNTED if counted[named[1]]):
        for key, value in blocks[group, block].items():
            if key not in settings:
                _set(config, key, value)
                set_by[key] = file_of(group, choices), block
    found = _resolved(config, options, set_by)
    functions = blocks["method", AUTO]
    automatic = [key for key in functions if value_at(found, key) == "auto"]
    resolved = OmegaConf.create(found if automatic else {})
    for key in automatic:
        with blaming(file_of("method", choices), AUTO):
            put(found, key, options[key].read(_computed(functions[key], resolved)))
            _set(resolved, key, value_at(found, key))
    return found, options, choices


def _resolved(config: DictConfig, options: Mapping[str, Option], set_by: Mapping[str, tuple[str, str]]) -> Plain:
    """All values with their references followed, checked and of their options' types.

    set_by: the file and the block of it that set an option, where one did.
    """
    try:
        found: Plain = plain(config)
    except (OmegaConfBaseException, RecursionError):
        for key in options:  # which of them
            with blaming(*set_by.get(key, ("", None))):
                _get(config, key)
        raise
    for key, option in options.items():
        with blaming(*set_by.get(key, ("", None))):
            put(found, key, option.read(value_at(found, key)))
    return found


def _settings(parsed: Iterable[Override], options: Mapping[str, Option]) -> dict[str, Any]:
    """Values by option; what a mapping holds, each by its own key."""
    found: dict[str, Any] = {}
    for override in parsed:
        key = override.key_or_group
        value = value_of(override, options.get(key))
        given = {key: value}
        if key == OPEN:
            if not isinstance(value, dict):
                line = override.input_line
                raise UserError(f"{line} is no mapping: write it as {OPEN}={{img_size: 32, patch_size: 4}}.")
            given = {f"{key}.{name}": one for name, one in value.items()}
        for name in given:
            if name in found:
                raise UserError(f"{name} is set twice, by itself and within {OPEN}: leave one of them out.")
        found |= given
    return found


def _computed(function: Plain, config: DictConfig) -> Any:
    """What the function called ``target`` gives for its other entries, whose references are to ``config``."""
    try:
        arguments: Any = plain(OmegaConf.create(function, parent=config))
        module, _, name = arguments.pop("target").rpartition(".")
        try:
            computed = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(f"{function['target']} is not to be found: {error}.") from None
        return computed(**arguments)
    except (OmegaConfBaseException, ArithmeticError, TypeError) as error:
        raise UserError(f"{function['target']}: {str(error).splitlines()[0]}.") from None


def _get(config: DictConfig, key: str) -> Any:
    try:
        return plain(OmegaConf.select(config, key))
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"{key} cannot be resolved: {str(error).splitlines()[0]}.") from None


def _set(config: DictConfig, key: str, value: Any) -> None:
    try:
        OmegaConf.update(config, key, value)
    except OmegaConfBaseException as error:
        raise UserError(f"{key}={value} cannot be read: {str(error).splitlines()[0]}.") from None
