"""Which code a run's figures follow from: a digest of the method and of all that its training and scoring reach.

Reached is what is named: the class of the method, what that class names in its own module and in others of the package,
and so on; and likewise ROOTS, which all methods share. A function that is added beside them counts for nobody.

The digest is of the syntax tree, so that comments, docstrings and layout do not count; nor do annotations and the
sentences of errors, which change no figure. It is the same under every version of Python, wherever
the package lies and in whichever of its modules the code stands.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ssl_bench

PACKAGE = "ssl_bench"
# How a method is built, which images it sees in which order, and how its networks and the baselines are scored.
ROOTS = (
    "training.build.build_method",
    "training.build.build_evaluator",
    "training.build.baseline_scores",
    "data.datamodule.DataModule",
)
WHOLE = "*"  # a module, by what it is called where it is imported with its package
READING = f"{PACKAGE}.data.catalog"  # and what it leads to: which images were read is the data's own digest
# Without effect on figures, or written into the tree by some versions of Python only.
IGNORED = ("annotation", "ctx", "kind", "returns", "type_comment", "type_ignores")

Symbol = tuple[str, str]  # a module and a name in it; "" is the module itself


def _texts() -> dict[str, str]:
    """The package's source by module."""
    folder = Path(ssl_bench.__file__).parent
    found = {}
    for file in sorted(folder.rglob("*.py")):
        parts = (PACKAGE, *file.relative_to(folder).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file.read_text(encoding="utf-8")
    return found


TEXTS = _texts()  # as loaded: the checkout may move on while a run is at work


@functools.cache
def code_digest(target: str) -> str | None:
    """Twelve hexadecimal digits of the code behind ``target``, the dotted name of a method's class.

    A class outside this package brings what it reaches of its own package. None where the source cannot be read.
    """
    try:
        return _digest(target)
    except SyntaxError:
        return None


def _digest(target: str) -> str | None:
    roots = [_symbol(target), *(_symbol(f"{PACKAGE}.{root}") for root in ROOTS)]
    packages = tuple({module.partition(".")[0] for module, _ in roots})
    found: set[str] = set()
    seen: set[Symbol] = set()
    left = list(roots)
    while left:
        symbol = left.pop()
        module = _module(symbol[0], packages)
        if symbol in roots and (module is None or symbol[1] not in module.defined):
            return None
        if module is None or symbol in seen or symbol[0] == READING:
            continue
        seen.add(symbol)
        left += module.imported.get(symbol[1], ())  # handed on
        for statement in module.statements(symbol[1]):
            found.add(_read(statement)[0])
            left += module.named_by(statement)
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:12]


def is_other_code(versions: Iterable[Mapping[str, Any]], digest: str | None, *, unknown: bool = False) -> bool:
    """Whether one of a run's code versions is of another digest; ``unknown`` is the answer for one that has none."""
    known = [version.get("digest") for version in versions]
    return digest is not None and any(unknown if one is None else one != digest for one in known)


def _symbol(target: str) -> Symbol:
    module, _, name = target.rpartition(".")
    return module, name


@dataclass(frozen=True)
class Module:
    """The statements of a module's top level, by the name that they define, and where its imports come from."""

    name: str
    defined: dict[str, list[ast.stmt]]
    effects: list[ast.stmt]  # define no name, and are done wherever the module is imported
    imported: dict[str, set[Symbol]]

    def statements(self, name: str) -> list[ast.stmt]:
        """Those behind ``name``; all of them for the module itself."""
        whole = name in ("", WHOLE)
        chosen = [node for found in self.defined.values() for node in found] if whole else self.defined.get(name, [])
        return [*self.effects, *chosen]

    def named_by(self, statement: ast.stmt) -> Iterator[Symbol]:
        """What a statement names, here or elsewhere."""
        for name, attribute in _read(statement)[1]:
            if name in self.defined:
                yield self.name, name
            for module, inner in self.imported.get(name, ()):
                yield module, inner or attribute  # of a module that is imported, what is used


def _module(name: str, packages: tuple[str, ...]) -> Module | None:
    """The module of that name; None for one outside ``packages``, and for what is no module."""
    text = _source(name, packages)
    return None if text is None else _parsed(name, text, packages)


@functools.cache
def _parsed(name: str, text: str, packages: tuple[str, ...]) -> Module:
    tree = ast.parse(text)
    module = Module(name, {}, [], {})
    for node in _walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                here = alias.asname or alias.name.partition(".")[0]  # as the module calls it
                module.imported.setdefault(here, set()).add(_origin(name, node, alias, packages))
    for node in dict(_fields(tree)).get("body", ()):
        names = _defines(node)
        for defined in names:
            module.defined.setdefault(defined, []).append(node)
        if not names and not isinstance(node, (ast.Import, ast.ImportFrom)):
            module.effects.append(node)
    return module


def _origin(name: str, node: ast.Import | ast.ImportFrom, alias: ast.alias, packages: tuple[str, ...]) -> Symbol:
    """Where a name comes from that the module ``name`` imports."""
    if isinstance(node, ast.Import):
        return alias.name, "" if alias.asname or "." not in alias.name else WHOLE  # a.b.c is read as a's b
    module = str(node.module)
    if node.level:
        spec = importlib.util.find_spec(name)
        parent = name if spec and spec.submodule_search_locations else name.rpartition(".")[0]
        with suppress(ImportError, ValueError):  # beyond the package, as a script may try
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), parent)
    inside = f"{module}.{alias.name}"
    return (module, alias.name) if _source(inside, packages) is None else (inside, "")


def _source(name: str, packages: tuple[str, ...]) -> str | None:
    top = name.partition(".")[0]
    if top == PACKAGE or top not in packages:
        return TEXTS.get(name)
    try:
        spec = importlib.util.find_spec(name)
        return Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else None
    except (ImportError, ValueError, OSError):
        return None


def _defines(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return set()


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The parts of a node that count, in an order that no version of Python changes."""
    if isinstance(node, ast.Raise):
        yield "exc", node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return
    for name in sorted(node._fields):
        value = getattr(node, name, None)
        if isinstance(value, list):
            value = [item for item in value if not _counts_for_nothing(item)]
        # Later versions have more fields, which are empty for all that earlier ones can read.
        if name not in IGNORED and value is not None and value != []:
            yield name, value


def _counts_for_nothing(node: Any) -> bool:
    """Whether it is a docstring, another lone constant, ``pass``, or what only a type checker reads."""
    lone = isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    return lone or (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")


def _text(part: Any) -> str:
    """A node, a list of nodes or a constant in letters that no version of Python writes otherwise."""
    if isinstance(part, ast.AST):
        return f"{type(part).__name__}({', '.join(f'{name}={_text(value)}' for name, value in _fields(part))})"
    if isinstance(part, list):
        return f"[{', '.join(map(_text, part))}]"
    return ascii(part)


def _walk(part: Any) -> Iterator[ast.AST]:
    if isinstance(part, ast.AST):
        yield part
        part = [value for _, value in _fields(part)]
    if isinstance(part, list):
        for item in part:
            yield from _walk(item)


@functools.cache
def _read(statement: ast.stmt) -> tuple[str, set[tuple[str, str]]]:
    """Its text, and every name that it uses with the attribute that is asked of it, "" where none is."""
    found = set()
    owners = set()
    for part in _walk(statement):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            found.add((part.value.id, part.attr))
            owners.add(id(part.value))
        elif isinstance(part, ast.Name) and id(part) not in owners:
            found.add((part.id, ""))
    return _text(statement), found
