"""What the files of conf/ hold under the choices of a command line, checked before any option is set.

Beside values with their references that is: the options there are, the file of each group, and what the blocks of these
files set. A mistake in a file, as a user's own may have, is answered with its name.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_bench.config import sources
from ssl_bench.config.composition import tree_of
from ssl_bench.config.options import (
    GROUPS,
    OPEN,
    Option,
    bases,
    choices_with,
    comments,
    is_open,
    nearest,
    options_of,
    typed,
)
from ssl_bench.config.schema import Plain
from ssl_bench.config.sources import AUTO, BLOCKS, SCALES, STATED
from ssl_bench.errors import UserError

Block = tuple[str, str]  # the group whose file has it, and its name
Blocks = dict[Block, dict[str, Any]]  # values by option
COUNTED: tuple[Block, ...] = (("method", "sets"), ("backbone", "sets"), ("method", "original"), ("method", "check"))


@functools.cache
def chosen_files(groups: tuple[str, ...]) -> tuple[DictConfig, dict[str, Option], dict[str, str], Blocks]:
    """What conf/ holds under the given choices: values with their references, options, the file of each group, and
    what the blocks of its files set beside what an experiment sets."""
    tree, choices = tree_of(groups)
    chosen = _set_by_experiment(choices["experiment"])
    # An experiment sets options of all groups, so it is checked against the files it builds on.
    experiment = choices["experiment"]
    base = tree if experiment == "none" else tree_of(overrides_of({**choices, "experiment": "none"}))[0]
    scales = _pop_scales(base, set())
    if base is not tree:
        _pop_scales(tree, chosen)
    blocks = _pop_blocks(base)
    if base is not tree and _pop_blocks(tree) != blocks:
        raise UserError(f"experiment={experiment}: {', '.join(BLOCKS)} are no options: set what they set.")
    config = OmegaConf.create(tree)
    try:
        known = dict(leaves(plain(config if base is tree else OmegaConf.create(base))))
    except (OmegaConfBaseException, RecursionError) as error:
        key = str(getattr(error, "full_key", None) or "an option")
        where = file_of(group_of(key), choices) if group_of(key) in choices else "conf/"
        raise UserError(f"{where}: {key} cannot be resolved: {str(error).splitlines()[0]}.") from None
    options = options_of(choices, known)
    _require_method_file(choices["method"], known, options)
    for key, _ in leaves(tree):
        if key not in known and not is_open(key):
            raise UserError(f"experiment={experiment}: {unknown(key, options, choices)}")
    for group, scale, values in scales:
        with blaming(file_of(group, choices), f"{SCALES}, {scale}"):
            if scale not in GROUPS["scale"]:
                raise UserError(f"there is no scale {scale}{nearest(scale, GROUPS['scale']) or '.'}")
            check(dict(leaves({group: values})), options, choices)
    for group, block in COUNTED:
        with blaming(file_of(group, choices), block):
            check(blocks[group, block], options, choices)
    with blaming(file_of("method", choices), AUTO):
        check(dict.fromkeys(blocks["method", AUTO], "auto"), options, choices)
    for key, option in options.items():
        file = "conf/config.yaml" if key in comments("config.yaml") else file_of(group_of(key), choices)
        with blaming(file, "default"):
            option.read(known[key])
    left = {named: {key: value for key, value in blocks[named].items() if key not in chosen} for named in COUNTED}
    return config, options, choices, blocks | left


def _require_method_file(name: str, known: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    """UserError where a method's file is called otherwise than its method, or a block of it is misspelt."""
    own = known.get("method.name")
    if own != name:
        raise UserError(f"conf/method/{name}.yaml: name is {typed(own)}; set it to {name}, as the file is called.")
    for key in {key.split(".")[1]: None for key in known if group_of(key) == "method" and key not in options}:
        near = nearest(key, (*BLOCKS, *STATED, AUTO, SCALES))
        if near:
            raise UserError(f"conf/method/{name}.yaml: there is no block {key}{near}")


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


def _set_by_experiment(experiment: str) -> set[str]:
    """The options that an experiment's file sets, or one that it builds on."""
    tree = sources.load(f"experiment/{experiment}.yaml")
    entries = [entry for entry in tree.pop("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    keys = {key for key, _ in leaves(tree)}
    return keys.union(*(_set_by_experiment(entry.rpartition("/")[2]) for entry in entries))


def check(settings: Mapping[str, Any], options: Mapping[str, Option], choices: Mapping[str, str]) -> None:
    """UserError for keys that are no options and for values that are not allowed, references apart."""
    for key, value in settings.items():
        if key not in options:
            if is_open(key, value):
                continue
            raise UserError(unknown(key, options, choices))
        # Before references to the value are resolved, so that this option is named and not what follows from it.
        if "${" not in str(value):
            options[key].read(value)


def unknown(key: str, options: Mapping[str, Option], choices: Mapping[str, str]) -> str:
    """The sentence about a key that is no option."""
    inside = [option for option in options if option.startswith(f"{key}.")]
    if inside:
        return f"{key} has options of its own: set one of {', '.join(inside)}."
    group, _, name = key.partition(".")
    if name and group in choices and _without_comment(name, f"{group}/{choices[group]}.yaml"):
        return (
            f"{file_of(group, choices)}: {name} cannot be set, for its line has no comment: write what is allowed and "
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


@contextmanager
def blaming(file: str, block: str | None) -> Iterator[None]:
    """Name the ``file`` in front of what a block of it sets wrongly."""
    try:
        yield
    except UserError as error:
        raise (UserError(f"{file}, {block}: {error}") if block else error) from None


def group_of(key: str) -> str:
    """The group that an option is of, or its own name."""
    return key.partition(".")[0]


def file_of(group: str, choices: Mapping[str, str]) -> str:
    """The file chosen for a group, as sentences name it."""
    return f"conf/{group}/{choices[group]}.yaml"


def overrides_of(choices: Mapping[str, Any]) -> tuple[str, ...]:
    """The ``group=choice`` arguments of chosen files."""
    return tuple(f"{group}={choice}" for group, choice in choices.items())


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a nested mapping; an empty one has none, but for that of OPEN, which is a value."""
    for key, value in config.items():
        if isinstance(value, dict) and (value or f"{prefix}{key}" != OPEN):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(config: Any) -> Any:
    """Numbers, strings, lists and dicts, with references followed; OmegaConf's error where one cannot be."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
