"""What conf/ states of its keys: which values each may have, what it means, whether it is part of a run's identity.

The comment that ends a key's line is its contract, ``# [allowed] meaning {identity: …}``. Allowed are words, null, and
at most one range: ``[mean|sum]``, ``[0..1)``, ``(0..]``, ``[null|1..]``; a round bracket leaves its end of the range
out. The type is that of the key's value in conf/. An option counts in a run's name unless its comment ends in

- ``{identity: no}``: it sets where things lie, who watches or what runs them;
- ``{identity: elsewhere}``: it counts by the values that it leads to, or by the images;
- ``{identity: unless false}``: it was added later, and with this value a run is what it was before.

A key without a comment has that of the file it builds on, or names its file or its class and is no option. Nor are the
blocks ``sets``, ``original``, ``check``, ``needs``, ``shown``, ``auto`` and ``scales``.
"""

from __future__ import annotations

import difflib
import functools
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ssl_bench.config import sources
from ssl_bench.config.sources import AUTO, BLOCKS, SCALES, STATED
from ssl_bench.errors import UserError

CHOICES: dict[str, str] = {  # of each group, unless another is asked for; in the order of config.yaml
    group: choice
    for entry in sources.load("config.yaml")["defaults"]
    if isinstance(entry, dict)
    for group, choice in entry.items()
    if not group.startswith("override ")
}
GROUPS = {group: sources.names(group) for group in CHOICES}
OPEN = "backbone.arguments"  # below it any name may be set, for only timm knows which there are
COMMENT = re.compile(
    r"\s#\s(?P<allowed>\[[^\s\])]*[\])]|\([^\s\])]*\.\.[^\s\])]*[\])])?\s*(?P<meaning>.*?)"
    r"\s*(\{identity: (?P<identity>no|elsewhere|unless [^\s}]+)\})?$"
)
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
RANGE = re.compile(rf"({NUMBER})?\.\.({NUMBER})?")


@dataclass(frozen=True)
class Option:
    """A key that can be set, with what its comment states."""

    key: str
    default: Any  # resolved
    allowed: str  # as written, "" for no limit
    meaning: str

    @property
    def alternatives(self) -> list[str]:
        return self.allowed[1:-1].split("|") if self.allowed else []

    @property
    def words(self) -> list[str]:
        """The words among the allowed values."""
        return [word for word in self.alternatives if word != "null" and ".." not in word]

    @property
    def limits(self) -> tuple[str, str]:
        """The two ends of the range as written, "" for an open one."""
        low, _, high = next((word for word in self.alternatives if ".." in word), "..").partition("..")
        return low, high

    @property
    def optional(self) -> bool:
        return self.default is None or "null" in self.alternatives

    @property
    def kind(self) -> type:
        """The type of the value, or of its items: bool, int, float or str."""
        example = next(iter(self.default), None) if isinstance(self.default, list) else self.default
        has_range = any(".." in word for word in self.alternatives)
        if example is not None and not (has_range and example in self.words):
            return type(example)
        if not has_range:
            return str
        # A default of null or auto shows no type: ranges that start at 1 or end beyond it count something.
        low, high = self.limits
        return int if re.fullmatch(r"[1-9]\d*", low) or re.fullmatch(r"[2-9]|[1-9]\d+", high) else float

    @property
    def is_text(self) -> bool:
        """Whether any text may be its value, as the path of a folder, which may look like a number or a list."""
        return self.kind is str and not self.words and not isinstance(self.default, list)

    def read(self, value: Any) -> Any:
        """``value`` as this option's type; UserError in one sentence if it is not allowed."""
        if (value is None and self.optional) or isinstance(self.default, dict):
            return value
        if isinstance(value, bool) and typed(value) in self.words:  # beside other words
            value = typed(value)
        several = isinstance(self.default, list)
        items = value if several and isinstance(value, list) else [value]
        wrong = [item for item in items if not self._permits(item)]
        if wrong or several != isinstance(value, list):
            hint = nearest(str(wrong[0]), self.words) if wrong else ""
            raise UserError(f"{self.key}={typed(value)} is not allowed: {self.key} is {self.description}{hint or '.'}")
        read = [item if item in self.words else self.kind(item) for item in items]
        return read if several else read[0]

    def _permits(self, value: Any) -> bool:
        if isinstance(value, bool) or self.kind is bool:
            return isinstance(value, bool) and self.kind is bool
        if isinstance(value, str) or self.kind is str:
            known = value in self.words if self.words else self.kind is str and value != ""
            return isinstance(value, str) and known
        # Out go nan, infinities and what no float holds; for counts, 1e3 is as whole as 1000.
        if not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
            return False
        low, high = self.limits
        above = not low or (value > float(low) if self.allowed[0] == "(" else value >= float(low))
        below = not high or (value < float(high) if self.allowed[-1] == ")" else value <= float(high))
        return above and below and (self.kind is float or value == int(value))

    @property
    def description(self) -> str:
        """The allowed values in words."""
        low, high = self.limits
        limits = [f"{'above' if self.allowed[0] == '(' else 'at least'} {low}"] if low else []
        limits += [f"{'below' if self.allowed[-1] == ')' else 'at most'} {high}"] if high else []
        names = {
            bool: "true or false",
            int: "a whole number",
            float: "a number",
            str: "text",
        }
        number = " ".join([names[self.kind], " and ".join(limits)]).strip()
        one = " or ".join([*self.words, *([number] if not self.words or self.kind is not str else [])])
        if isinstance(self.default, list):
            return f"a list such as {typed(self.default)}" + (f", each {one}" if self.allowed else "")
        return f"null or {one}" if self.optional else one


@functools.cache
def block_of(method: str, block: str) -> Mapping[str, Any]:
    """What the block ``needs`` or ``shown`` of a method's file states; nothing where there is no such method.

    A method needs also what those need that its file builds on.
    """
    if method not in GROUPS["method"]:
        return {}
    file = f"method/{method}.yaml"
    own: Mapping[str, Any] = sources.load(file).get(block) or {}
    if block != "needs":
        return own
    inherited = [block_of(base.rpartition("/")[2].removesuffix(".yaml"), block) for base in bases(file)]
    return {key: value for needs in (*inherited, own) for key, value in needs.items()}


@functools.cache
def comments(file: str, prefix: str = "") -> dict[str, tuple[str, str]]:
    """Allowed values and meaning by dotted key, from the comments that end the lines of a file of conf/.

    A file that builds on others of its group has theirs, too.
    """
    return {key: (found["allowed"] or "", found["meaning"]) for key, found in _comments(file, prefix).items()}


@functools.cache
def identities() -> dict[str, str]:
    """``no``, ``elsewhere`` or ``unless …`` by dotted key, or by group, for what is no part of a run's identity."""
    groups = re.findall(r"^  - (\w+): \w+(\s.*)$", sources.read("config.yaml"), re.M)
    comments_of = [(group, COMMENT.search(rest)) for group, rest in groups]
    files = [("config.yaml", ""), *((f"{group}/{choice}.yaml", group) for group in GROUPS for choice in GROUPS[group])]
    for file, prefix in files:
        if "{identity: " in sources.read(file):
            comments_of += _comments(file, prefix).items()
    return {key: comment["identity"] for key, comment in comments_of if comment and comment["identity"]}


@functools.cache
def _comments(file: str, prefix: str) -> dict[str, re.Match[str]]:
    text = sources.read(file)
    lines = text.splitlines()
    found: dict[str, re.Match[str]] = {}
    if prefix:
        for other in bases(file):
            found |= _comments(other, prefix)

    def visit(node: yaml.Node | None, path: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                if path == f"{prefix}." and name.value in (*BLOCKS, *STATED, AUTO, SCALES):
                    continue
                comment = COMMENT.search(lines[name.start_mark.line])
                if comment and not (isinstance(value, yaml.MappingNode) and value.value):
                    _require_readable(comment, f"conf/{file}, line {name.start_mark.line + 1}")
                    found[path + name.value] = comment
                visit(value, f"{path}{name.value}.")

    visit(yaml.compose(text, sources.LOADER), f"{prefix}." if prefix else "")
    return found


def _require_readable(comment: re.Match[str], where: str) -> None:
    """UserError for a bracket or an identity that would be taken for a part of the meaning."""
    words = (comment["allowed"] or "")[1:-1].split("|")
    wrong = [word for word in words if re.search(r",|^[\d.]+-[\d.]+$|\.\.", word) and not RANGE.fullmatch(word)]
    if wrong or re.match(r"\[|\(-?[\d.]+[,. ]|-?[\d.]*\.\.", comment["meaning"]):
        raise UserError(f"{where}: the allowed values cannot be read: write them as [1..], (0..1] or [mean|sum].")
    if "{identity" in comment["meaning"]:
        raise UserError(f"{where}: the identity cannot be read: write {{identity: no}} or {{identity: unless VALUE}}.")


def bases(file: str) -> list[str]:
    """The files of its own group that a file of conf/ builds on, in their order."""
    entries = [
        entry for entry in sources.load(file).get("defaults", ()) if isinstance(entry, str) and entry != "_self_"
    ]
    return [f"{file.rpartition('/')[0]}/{entry.rpartition('/')[2]}.yaml" for entry in entries]


def options_of(choices: Mapping[str, str], defaults: Mapping[str, Any]) -> dict[str, Option]:
    """All options under the choice of one file per group; ``defaults`` are the values by dotted key."""
    found = dict(comments("config.yaml"))
    for group, choice in choices.items():
        found |= comments(f"{group}/{choice}.yaml", group)
    return {key: Option(key, defaults[key], *comment) for key, comment in found.items() if key in defaults}


def is_open(key: str, value: Any = None) -> bool:
    """Whether ``key`` is below OPEN, where any name is an option. Raises UserError for a ``value`` that none takes."""
    above, _, name = key.rpartition(".")
    if above != OPEN or not name.isidentifier():
        return False
    if any(isinstance(one, (dict, list)) for one in (value if isinstance(value, list) else [value])):
        raise UserError(f"{key}={typed(value)} is to be a number, true or false, text, or a list of these.")
    return True


def choices_with(key: str) -> list[str]:
    """The choices, as ``method=clbo``, under which ``key`` is an option."""
    group = key.partition(".")[0]
    return [f"{group}={choice}" for choice in GROUPS.get(group, ()) if key in comments(f"{group}/{choice}.yaml", group)]


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` for the most similar known word, or nothing."""
    known = list(known)
    # Mostly it is the last part that people remember: `temperature` for `method.temperature`.
    ends = {key.rpartition(".")[2]: key for key in reversed(known)}
    whole, end = word.lower(), word.lower().rpartition(".")[2]
    for form, names, cutoff in ((whole, {key: key for key in known}, 0.85), (end, ends, 0.65)):
        near = difflib.get_close_matches(form, names, n=1, cutoff=cutoff)
        if near:
            return f"; did you mean {names[near[0]]}?"
    return ""


def typed(value: Any) -> str:
    """``value`` as one types it on the command line."""
    if isinstance(value, list):
        return f"[{','.join(typed(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
