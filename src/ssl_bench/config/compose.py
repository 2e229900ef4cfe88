"""From the command line to plain numbers, quickly (no torch).

Every word is checked before anything else is imported: keys against those of conf/, values against the contract that
``options`` reads there. What leaves this file is one frozen object of plain numbers, strings and lists with every
reference resolved.
"""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_bench.config import experiments, sources
from ssl_bench.config.composition import read_ahead, tree_of
from ssl_bench.config.options import (
    AUTO,
    BLOCKS,
    CHOICES,
    GROUPS,
    OPEN,
    SCALES,
    STATED,
    Option,
    bases,
    choices_with,
    comments,
    identities,
    is_open,
    nearest,
    options_of,
    typed,
)
from ssl_bench.config.parse import parse, value_of
from ssl_bench.config.schema import Config, Plain, put, value_at
from ssl_bench.errors import UserError

Block = tuple[str, str]  # the group whose file has it, and its name
Blocks = dict[Block, dict[str, Any]]  # values by option
_OF_KIND: dict[tuple[str, ...], Config] = {}  # of cells, by their words without the seed; tables share runs
COUNTED: tuple[Block, ...] = (("method", "sets"), ("backbone", "sets"), ("method", "original"), ("method", "check"))

# -- reading and checking the words ---------------------------------------------------------------


def compose(overrides: Sequence[str] = (), *, certified: bool = False) -> Config:
    """The resolved configuration for ``key=value`` words.

    certified: with the values that the method's block ``check`` sets for its certificate.

    Raises UserError, in one sentence, for unknown keys and groups, wrong types, values out of range and commas that
    need ``-m``.
    """
    return Config.from_dict(_compose(parse(overrides), certified=certified)[0])


def composed(words: Sequence[str]) -> tuple[Plain, dict[str, Option], dict[str, str]]:
    """The resolved configuration, the options it has, and the file chosen for each group."""
    return _compose(parse(words))


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
    words = [*_words(chosen), f"seed={config['seed']}"]
    if config.get("recipe", "shared") != "shared":
        words.append(f"recipe={config['recipe']}")
    defaults, options, _ = composed(words)
    words = [word for word in words if word.partition("=")[::2] not in CHOICES.items()]
    known, free = dict(leaves(defaults)), {key for key, identity in identities().items() if identity == "no"}
    settable = ((key, value) for key, value in leaves(config) if key in options or is_open(key, value))
    differing = {key: value for key, value in settable if key not in known or known[key] != value}
    return words + [f"{key}={typed(value)}" for key, value in differing.items() if key not in free]


def compose_cells(cells: Sequence[experiments.Cell]) -> list[Config]:
    """The resolved configuration of every cell; those that differ by their seed alone are composed once."""
    words = dict.fromkeys(word for cell in cells for word in cell.words)
    read_ahead((group, choice) for group, _, choice in (word.partition("=") for word in words))

    def of_kind(cell: experiments.Cell) -> Config:
        kind = tuple(word for word in cell.words if word != f"seed={cell.seed}")
        if kind not in _OF_KIND:
            _OF_KIND[kind] = compose(cell.words)
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
        raise UserError(f"experiment={name} is many runs: add -m, or run python -m ssl_bench sweep {name}.")
    defaults, options, choices, blocks = _files(_words(groups))
    settings = _settings((override for override in parsed if override.key_or_group not in GROUPS), options)
    _check(settings, options, choices)
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
                set_by[key] = _file(group, choices), block
    found = _resolved(config, options, set_by)
    functions = blocks["method", AUTO]
    automatic = [key for key in functions if value_at(found, key) == "auto"]
    resolved = OmegaConf.create(found if automatic else {})
    for key in automatic:
        with _blaming(_file("method", choices), AUTO):
            put(found, key, options[key].read(_computed(functions[key], resolved)))
            _set(resolved, key, value_at(found, key))
    return found, options, choices


def _resolved(config: DictConfig, options: Mapping[str, Option], set_by: Mapping[str, tuple[str, str]]) -> Plain:
    """All values with their references followed, checked and of their options' types.

    set_by: the file and the block of it that set an option, where one did.
    """
    try:
        found: Plain = _plain(config)
    except (OmegaConfBaseException, RecursionError):
        for key in options:  # which of them
            with _blaming(*set_by.get(key, ("", None))):
                _get(config, key)
        raise
    for key, option in options.items():
        with _blaming(*set_by.get(key, ("", None))):
            put(found, key, option.read(value_at(found, key)))
    return found


@functools.cache
def _files(groups: tuple[str, ...]) -> tuple[DictConfig, dict[str, Option], dict[str, str], Blocks]:
    """What conf/ holds under the given choices: values with their references, options, the file of each group, and
    what the blocks of its files set beside what an experiment sets."""
    tree, choices = tree_of(groups)
    chosen = _set_by_experiment(choices["experiment"])
    # An experiment sets options of all groups, so it is checked against the files it builds on.
    experiment = choices["experiment"]
    base = tree if experiment == "none" else tree_of(_words({**choices, "experiment": "none"}))[0]
    scales = _pop_scales(base, set())
    if base is not tree:
        _pop_scales(tree, chosen)
    blocks = _pop_blocks(base)
    if base is not tree and _pop_blocks(tree) != blocks:
        raise UserError(f"experiment={experiment}: {', '.join(BLOCKS)} are no options: set what they set.")
    config = OmegaConf.create(tree)
    known = dict(leaves(_plain(config if base is tree else OmegaConf.create(base))))
    options = options_of(choices, known)
    _require_method_file(choices["method"], known, options)
    for key, _ in leaves(tree):
        if key not in known and not is_open(key):
            raise UserError(f"experiment={experiment}: {_unknown(key, options, choices)}")
    for group, scale, values in scales:
        with _blaming(_file(group, choices), f"{SCALES}, {scale}"):
            if scale not in GROUPS["scale"]:
                raise UserError(f"there is no scale {scale}{nearest(scale, GROUPS['scale']) or '.'}")
            _check(dict(leaves({group: values})), options, choices)
    for group, block in COUNTED:
        with _blaming(_file(group, choices), block):
            _check(blocks[group, block], options, choices)
    for key, option in options.items():
        with _blaming("conf/config.yaml" if key in comments("config.yaml") else _file(_group(key), choices), "default"):
            option.read(known[key])
    left = {named: {key: value for key, value in blocks[named].items() if key not in chosen} for named in COUNTED}
    return config, options, choices, blocks | left


def _require_method_file(name: str, known: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    """UserError where a method's file is called otherwise than its method, or a block of it is misspelt."""
    own = known.get("method.name")
    if own != name:
        raise UserError(f"conf/method/{name}.yaml: name is {typed(own)}; set it to {name}, as the file is called.")
    for key in {key.split(".")[1]: None for key in known if _group(key) == "method" and key not in options}:
        near = nearest(key, (*BLOCKS, *STATED, AUTO, SCALES))
        if near:
            raise UserError(f"conf/method/{name}.yaml: there is no block {key}{near}")


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


def _check(settings: Mapping[str, Any], options: Mapping[str, Option], choices: Mapping[str, str]) -> None:
    """UserError for keys that are no options and for values that are not allowed, references apart."""
    for key, value in settings.items():
        if key not in options:
            if is_open(key, value):
                continue
            raise UserError(_unknown(key, options, choices))
        # Before references to the value are resolved, so that this word is named and not what follows from it.
        if "${" not in str(value):
            options[key].read(value)


def _pop_blocks(tree: Plain) -> Blocks:
    """The blocks of the method and of the backbone with their references; they leave ``tree``."""
    for block in STATED:
        tree["method"].pop(block, None)
    return {(group, block): tree[group].pop(block, None) or {} for group, block in (*COUNTED, ("method", AUTO))}


def _pop_scales(tree: Plain, kept: set[str]) -> list[tuple[str, str, Plain]]:
    """Set what the files' blocks hold for the chosen scale, but for ``kept`` keys; the blocks leave ``tree``.

    Returns group, scale and options of each.
    """
    found = []
    for group in GROUPS:
        for scale, values in (tree.get(group, {}).pop(SCALES, None) or {}).items():
            if scale == tree["scale"]["name"]:
                _merge(tree[group], _without(values, kept, f"{group}."))
            found.append((group, scale, {key: value for key, value in values.items() if key not in (*BLOCKS, AUTO)}))
    return found


def _merge(tree: Plain, other: Plain) -> None:
    """Set in ``tree`` what ``other`` holds."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _without(tree: Plain, keys: set[str], prefix: str) -> Plain:
    """``tree`` without the leaves that ``keys`` name, in front of which ``prefix`` stands."""
    return {
        name: _without(value, keys, f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in tree.items()
        if f"{prefix}{name}" not in keys
    }


def _computed(function: Plain, config: DictConfig) -> Any:
    """What the function called ``target`` gives for its other entries, whose references are to ``config``."""
    try:
        arguments: Any = _plain(OmegaConf.create(function, parent=config))
        module, _, name = arguments.pop("target").rpartition(".")
        return getattr(importlib.import_module(module), name)(**arguments)
    except (OmegaConfBaseException, ArithmeticError) as error:
        raise UserError(f"{function['target']}: {str(error).splitlines()[0]}.") from None


def _group(key: str) -> str:
    return key.partition(".")[0]


def _file(group: str, choices: Mapping[str, str]) -> str:
    return f"conf/{group}/{choices[group]}.yaml"


def _set_by_experiment(experiment: str) -> set[str]:
    """The options that an experiment's file sets, or one that it builds on."""
    tree = sources.load(f"experiment/{experiment}.yaml")
    entries = [entry for entry in tree.pop("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    keys = {key for key, _ in leaves(tree)}
    return keys.union(*(_set_by_experiment(entry.rpartition("/")[2]) for entry in entries))


@contextmanager
def _blaming(file: str, block: str | None) -> Iterator[None]:
    """Name the ``file`` in front of what a block of it sets wrongly."""
    try:
        yield
    except UserError as error:
        raise (UserError(f"{file}, {block}: {error}") if block else error) from None


def _words(choices: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{group}={choice}" for group, choice in choices.items())


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and (value or f"{prefix}{key}" != OPEN):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def _get(config: DictConfig, key: str) -> Any:
    try:
        return _plain(OmegaConf.select(config, key))
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"{key} cannot be resolved: {str(error).splitlines()[0]}.") from None


def _set(config: DictConfig, key: str, value: Any) -> None:
    try:
        OmegaConf.update(config, key, value)
    except OmegaConfBaseException as error:
        raise UserError(f"{key}={value} cannot be read: {str(error).splitlines()[0]}.") from None


def _unknown(key: str, options: Mapping[str, Option], choices: Mapping[str, str]) -> str:
    inside = [option for option in options if option.startswith(f"{key}.")]
    if inside:
        return f"{key} has options of its own: set one of {', '.join(inside)}."
    group, _, name = key.partition(".")
    if name and group in choices and _without_comment(name, f"{group}/{choices[group]}.yaml"):
        return (
            f"{_file(group, choices)}: {name} cannot be set, for its line has no comment: write what is allowed and "
            "what it means behind the value, as in # [0..] weight of the loss."
        )
    elsewhere = choices_with(key)
    if elsewhere:
        own = f" If {choices[group]} is your own and can use it, add it to conf/method/{choices[group]}.yaml."
        sentence = f"option {key} is unknown under {group}={choices[group]}; it belongs to {' and '.join(elsewhere)}."
        return sentence + (own if group == "method" else "")
    return f"option {key} is unknown{nearest(key, [*GROUPS, *options]) or '; --help lists all options.'}"


def _without_comment(name: str, file: str) -> bool:
    """Whether a file of conf/, or one that it builds on, has such a key, which is no option for that reason alone."""
    if name.partition(".")[0] in ("name", "target", "defaults", *BLOCKS, *STATED, AUTO, SCALES):
        return False
    keys = dict(leaves(sources.load(file)))
    return name in keys or any(_without_comment(name, other) for other in bases(file))
