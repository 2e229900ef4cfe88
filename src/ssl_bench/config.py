"""From the command line to plain numbers: the only importer of Hydra and OmegaConf, and quick (no torch).

``compose`` checks every word before anything else is imported: names against the keys of ``conf/``, values against
the type of their default and the range that stands in brackets behind the key. What leaves this file is a nested dict
of plain numbers, strings and lists with every reference resolved.
"""

from __future__ import annotations

import ast
import difflib
import importlib.resources
import itertools
import operator
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_bench.errors import UserError

Config = dict[str, Any]
CONF = importlib.resources.files("ssl_bench.conf")
GROUPS = {
    folder.name: sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))
    for folder in sorted(CONF.iterdir(), key=lambda entry: entry.name)
    if folder.is_dir() and not folder.name.startswith("_")
}


# -- what the comments of conf/ say ---------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """A key of conf/ with the allowed values and the meaning that its comment states."""

    key: str
    allowed: str  # as written: "[0..1)", "[mean|sum]", "[null|1..]", "" for no limit
    meaning: str

    def permits(self, value: Any) -> bool:
        """Whether ``value`` is one of the words or within one of the ranges."""
        if not self.allowed:
            return True
        if isinstance(value, list):
            return all(self.permits(item) for item in value)
        opening, closing = self.allowed[0], self.allowed[-1]
        for word in self.allowed[1:-1].split("|"):
            if ".." not in word:
                if value == (None if word == "null" else word):
                    return True
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                low, high = word.split("..")
                above = not low or (value > float(low) if opening == "(" else value >= float(low))
                below = not high or (value < float(high) if closing == ")" else value <= float(high))
                if above and below:
                    return True
        return False

    @property
    def words(self) -> list[str]:
        """The words among the allowed values."""
        return [word for word in self.allowed[1:-1].split("|") if word and ".." not in word]

    @property
    def whole(self) -> bool:
        """Whether the range is of whole numbers: its lower end is a positive one, as in counts."""
        return any(re.fullmatch(r"[1-9]\d*\.\.\d*", word) for word in self.allowed[1:-1].split("|"))


COMMENT = re.compile(r"\s#\s(?P<allowed>[\[(][^\s\])]*[\])])?\s*(?P<meaning>.*)$")


def read_options(text: str, prefix: str = "") -> dict[str, Option]:
    """The options of one YAML file by dotted key, read from the comments that end their lines."""
    lines = text.splitlines()
    options: dict[str, Option] = {}

    def visit(node: yaml.Node | None, path: tuple[str, ...]) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for name, value in node.value:
            here = (*path, name.value)
            comment = COMMENT.search(lines[name.start_mark.line])
            if comment:
                key = ".".join(here)
                options[key] = Option(key, comment["allowed"] or "", comment["meaning"])
            visit(value, here)

    visit(yaml.compose(text), (prefix,) if prefix else ())
    return options


def options_of(choices: Mapping[str, str]) -> dict[str, Option]:
    """All options under the given choice of one file per group."""
    options = read_options((CONF / "config.yaml").read_text(encoding="utf-8"))
    for group, choice in choices.items():
        file = CONF / group / f"{choice}.yaml"
        if file.is_file():
            options.update(read_options(file.read_text(encoding="utf-8"), group))
    return options


# -- references within conf/ ----------------------------------------------------------------------

ARITHMETIC: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


def _calculate(text: str) -> float:
    """The value of an arithmetic expression of numbers, + − * / and brackets."""

    def value(node: ast.AST) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        if isinstance(node, ast.BinOp):
            return ARITHMETIC[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp):
            return ARITHMETIC[type(node.op)](value(node.operand))
        raise ValueError(f"not arithmetic: {text}")

    return float(value(ast.parse(str(text), mode="eval").body))


def _by_scale(values: Any, *, _root_: DictConfig) -> Any:
    """The entry of ``values`` for the chosen scale."""
    return values[_root_.scale.name]


OmegaConf.register_new_resolver("by_scale", _by_scale, replace=True)
OmegaConf.register_new_resolver("calc", _calculate, replace=True)


# -- composing and checking -----------------------------------------------------------------------


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` for the most similar known word, or nothing."""
    known = list(known)
    # A key is mostly known by its last part: `temperature` for `method.temperature`.
    same_end = [key for key in known if key.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1]]
    near = same_end[:1] or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not near:
        ends = {key.rsplit(".", 1)[-1]: key for key in known}
        near = [ends[end] for end in difflib.get_close_matches(word.rsplit(".", 1)[-1], ends, n=1, cutoff=0.6)]
    return f"; did you mean {near[0]}?" if near else ""


def compose(overrides: Sequence[str] = ()) -> Config:
    """The resolved configuration for ``key=value`` words.

    Raises UserError, in one sentence, for unknown keys and groups, wrong types, values out of range and commas that
    need ``-m``.
    """
    parsed = parse(overrides)
    for override in parsed:
        if override.is_sweep_override():
            raise UserError(f"{override.input_line} names several values: add -m to run them all.")
    return _compose(parsed)


def cells(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The combinations of a multirun's values, each as overrides of one run."""
    axes = []
    for override in parse(overrides):
        if override.is_sweep_override():
            axes.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            axes.append([override.input_line or ""])
    return (list(cell) for cell in itertools.product(*axes))


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's reading of the words; UserError for what is no ``key=value``."""
    parser = OverridesParser.create()
    parsed = []
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            groups = [f"{group}={word}" for group, choices in GROUPS.items() if word in choices]
            hint = f"; did you mean {groups[0]}?" if groups else " (for example method=byol)."
            raise UserError(f"{word!r} is not of the form key=value{hint}")
        try:
            parsed.append(parser.parse_override(word))
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{word} cannot be read: {reason}. Quote values with special characters: 'key=\"…\"'.") from None
    return parsed


def _compose(parsed: Sequence[Override]) -> Config:
    group_words = [o for o in parsed if o.key_or_group in GROUPS]
    for override in group_words:
        _check_choice(override)
    others = [o for o in parsed if o.key_or_group not in GROUPS and not o.key_or_group.startswith("hydra")]
    base_config, choices = _hydra([o.input_line or "" for o in group_words])
    base = _resolve(base_config)
    options = options_of(choices)
    leaves = dict(_leaves(base))
    for override in others:
        _check_key(override, leaves)
        # Before references to the value are resolved, so that the user's word is named and not what follows from it.
        _check_value(override.key_or_group, _plain(override.value()), leaves, options)
    config = _resolve(_hydra([o.input_line or "" for o in parsed])[0]) if others else base
    for key, value in _leaves(config):
        _check_value(key, value, leaves, options)
    return config


def _hydra(overrides: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """Hydra's own composition and the file chosen for each group."""
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module("ssl_bench.conf", version_base="1.3"):
            config = hydra.compose("config", overrides=overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(" ".join(str(error).split())) from None
    choices = {group: str(config.hydra.runtime.choices[group]) for group in GROUPS if group in config.hydra.runtime.choices}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config, choices


def _resolve(config: DictConfig) -> Config:
    try:
        container = OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"the configuration cannot be resolved: {' '.join(str(error).split())}") from None
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_choice(override: Override) -> None:
    group, choice = override.key_or_group, override.value()
    if choice not in GROUPS[group]:
        known = ", ".join(GROUPS[group])
        raise UserError(f"{group}={choice} is unknown{nearest(str(choice), GROUPS[group]) or '.'} Known: {known}.")


def _check_key(override: Override, leaves: Mapping[str, Any]) -> None:
    key = override.key_or_group
    known = [*leaves, *GROUPS]
    if override.is_delete() or override.is_add() or override.is_force_add():
        if not (override.is_delete() and key in leaves):
            raise UserError(f"{override.input_line} adds an option nothing reads{nearest(key, known) or '.'}")
        return
    branch = any(leaf.startswith(key + ".") for leaf in leaves)
    if key not in leaves and not branch:
        raise UserError(f"option {key} is unknown{nearest(key, known) or '; --help lists all options.'}")
    if branch and not isinstance(override.value(), dict):
        inside = ", ".join(leaf for leaf in leaves if leaf.startswith(key + "."))
        raise UserError(f"{override.input_line}: {key} has options of its own ({inside}); set one of them.")


def _plain(value: Any) -> Any:
    """Hydra's quoted strings and lists as Python's."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value.text if isinstance(value, QuotedString) else value


def _check_value(key: str, value: Any, leaves: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            _check_value(f"{key}.{name}", item, leaves, options)
        return
    if isinstance(value, str) and "${" in value:
        return  # a reference: what it stands for is checked after resolving
    option = options.get(key)
    if key in leaves:
        _check_type(key, value, leaves[key], option)
    if option and not option.permits(value):
        hint = nearest(str(value), option.words) if isinstance(value, str) else ""
        raise UserError(f"{key}={_word(value)} is not allowed: {key} is {_allowed_in_words(option)}{hint or '.'}")


def _word(value: Any) -> str:
    """The value as one types it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def _check_type(key: str, value: Any, default: Any, option: Option | None) -> None:
    """UserError unless ``value`` is of the default's type; a null default takes what the comment allows."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    optional = option is not None and "null" in option.words and value is None
    if isinstance(default, bool):
        wanted, fits = "true or false", isinstance(value, bool)
    elif isinstance(default, int) or (default is None and option is not None and option.whole):
        wanted, fits = "a whole number", (number and isinstance(value, int)) or optional
    elif isinstance(default, float):
        wanted, fits = "a number", number or optional
    elif isinstance(default, list):
        numbers = all(isinstance(item, (int, float)) for item in default)
        wanted = f"a list of {'numbers' if numbers else 'words'} such as {default}"
        kind = (int, float) if numbers else (str,)
        fits = isinstance(value, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)
    elif isinstance(default, str):
        wanted, fits = "a word", isinstance(value, str)
    else:
        wanted = _allowed_in_words(option) if option and option.allowed else "a word"
        fits = option is None or not option.allowed or option.permits(value)
    if not fits:
        hint = nearest(str(value), option.words) if option else ""
        raise UserError(f"{key}={_word(value)} has the wrong type: {key} is {wanted}{hint or '.'}")


def _allowed_in_words(option: Option) -> str:
    parts = []
    for word in option.allowed[1:-1].split("|"):
        if ".." not in word:
            parts.append(word)
            continue
        low, high = word.split("..")
        above = f"{'above' if option.allowed[0] == '(' else 'at least'} {low}" if low else ""
        below = f"{'below' if option.allowed[-1] == ')' else 'at most'} {high}" if high else ""
        parts.append(" and ".join(part for part in (above, below) if part))
    return " or ".join(parts)


# -- the command line -----------------------------------------------------------------------------


def main(task: Callable[[Config], None], arguments: Sequence[str] | None = None) -> int:
    """Run ``task`` for the command line's one run or, with ``-m``, for each of its runs; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    flags = [word for word in arguments if word.startswith("-")]
    words = [word for word in arguments if not word.startswith("-")]
    try:
        if {"-h", "--help"} & set(flags):
            print(help_text(words))
            return 0
        if not flags:
            task(compose(words))
            return 0
        if {"-m", "--multirun"} & set(flags):
            for cell in cells(words):
                compose(cell)
        return _multirun(task, arguments)
    except UserError as error:
        print(f"ssl_bench: {error}", file=sys.stderr)
        return 2


def _multirun(task: Callable[[Config], None], arguments: list[str]) -> int:
    failed = []

    def cell(config: DictConfig) -> None:
        try:
            task(_resolve(config))
        except UserError as error:
            failed.append(str(error))
            print(f"ssl_bench: {error}", file=sys.stderr)

    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path="pkg://ssl_bench.conf", config_name="config")(cell)()
    return 2 if failed else 0


def help_text(words: Sequence[str] = ()) -> str:
    """Usage, groups, and every option with its default, allowed values and meaning."""
    parsed = [override for override in parse(words) if override.key_or_group in GROUPS]
    for override in parsed:
        _check_choice(override)
    config, choices = _hydra([override.input_line or "" for override in parsed])
    values = dict(_leaves(_resolve(config)))
    lines = [
        "python -m ssl_bench [-m] [key=value ...]",
        "",
        "Trains one self-supervised method on one dataset and prints a table of accuracies.",
        "With -m, comma-separated values run one after another: -m method=clbo,byol seed=0,1,2",
        "",
    ]
    lines += [f"  {group:<12} {' | '.join(choices_)}" for group, choices_ in GROUPS.items() if choices_ != ["none"]]
    lines += ["", f"Options under {', '.join(f'{g}={choices[g]}' for g in ('method', 'dataset', 'scale'))}:", ""]
    for key, option in options_of(choices).items():
        if key in values and not key.startswith("hydra"):
            allowed = f"  {option.allowed}" if option.allowed else ""
            lines.append(f"  {key}={'null' if values[key] is None else values[key]}{allowed}\n      {option.meaning}")
    return "\n".join(lines)
