"""The options of commands that have a file of their own in conf/, as ``bench.yaml`` is, and their command lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from ssl_bench.config import sources
from ssl_bench.config.options import GROUPS, NUMBER, Option, choices_with, comments, nearest, typed
from ssl_bench.errors import UserError

MOST = 40  # names that a sentence lists


def options_in(file: str) -> dict[str, Option]:
    """The options of a file of conf/ that stands by itself, as ``bench.yaml`` does."""
    defaults = sources.load(file)
    return {key: Option(key, defaults[key], *comment) for key, comment in comments(file).items()}


def read_settings(file: str, arguments: Iterable[str]) -> dict[str, Any]:
    """All options of such a file, set by ``key=value`` arguments; UserError in one sentence for any other argument."""
    known = options_in(file)
    settings = {key: option.default for key, option in known.items()}
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"{argument} is not of the form key=value{near_or_all(argument, known)}")
        if key not in known:
            raise UserError(f"option {key} is unknown{near_or_all(key, known)}")
        require_once(given, argument)
        if isinstance(known[key].default, dict):
            settings[key] = _mapping(argument, value)
        elif isinstance(known[key].default, list):
            settings[key] = known[key].read([plain_value(item, text_only=False) for item in items_of(value)])
        else:
            settings[key] = known[key].read(plain_value(value, text_only=known[key].is_text))
    return settings


def require_once(given: dict[str, str], argument: str) -> None:
    """Take down what ``argument`` sets; UserError where another one has set it."""
    key = argument.partition("=")[0]
    if key in given:
        raise UserError(f"{key} is set twice, by {given[key]} and by {argument}: leave one of them out.")
    given[key] = argument


def items_of(text: str) -> list[str]:
    """The items of a list as one types it, with or without brackets."""
    return [item.strip() for item in text.strip("[]").split(",") if item.strip()]


def require_known(arguments: Iterable[str], own: Iterable[str]) -> None:
    """UserError for an argument that is no option of a run, and nearly one of the ``own`` options of an entry point."""
    for key in (argument.partition("=")[0] for argument in arguments):
        near = nearest(key, own)
        if near and key not in GROUPS and key not in comments("config.yaml") and not choices_with(key):
            raise UserError(f"option {key} is unknown{near}")


def split_options(file: str, options: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The options of ``file``, as of `read_settings`, and the others of ``options``, which are those of a run."""
    known = options_in(file)
    own = [option for option in options if option.partition("=")[0] in known]
    others = [option for option in options if option not in own]
    require_known(others, known)
    return read_settings(file, own), others


def positional(arguments: Sequence[str], *names: str) -> tuple[list[str], list[str]]:
    """The first arguments, one for each of ``names``, and the rest; UserError where key=value stands in their place.

    An argument with an equals sign is taken for the name of a file if there is one.
    """
    for number, name in enumerate(names):
        if number >= len(arguments) or ("=" in arguments[number] and not os.path.exists(arguments[number])):
            found = f", and {arguments[number]} is none" if number < len(arguments) else ""
            raise UserError(f"argument {number + 1} must be {name}{found}; --help shows more.")
    return list(arguments[: len(names)]), list(arguments[len(names) :])


def near_or_all(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the one that was meant, or all there are, or MOST of them."""
    known = list(known)
    more = f" and {len(known) - MOST} more" if len(known) > MOST else ""
    return nearest(name, known) or f"; known are {', '.join(known[:MOST])}{more}."


def settings_text(file: str) -> list[str]:
    """One line of help for each option of such a file."""
    entries = {f"{key}={typed(option.default)}": option for key, option in options_in(file).items()}
    width = max(14, *(len(entry) + 2 for entry in entries))
    return [f"  {entry:<{width}}{option.allowed} {option.meaning}".rstrip() for entry, option in entries.items()]


def _mapping(argument: str, text: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise UserError(f"{argument} is no mapping of names to values, as {{img_size: 32, patch_size: 4}} is.")
    return value


def plain_value(text: str, *, text_only: bool) -> Any:
    """``text`` as YAML reads it, or as it is where YAML finds a structure or nothing readable.

    text_only: as it is where YAML finds anything but text or null.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str) and re.fullmatch(NUMBER, value) and not text_only:  # 1e3, which is text to YAML
        value = float(value)
    plain = (str,) if text_only else (str, bool, int, float)
    return value if value is None or isinstance(value, plain) else text
