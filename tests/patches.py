"""Patches of syntax: ``"A / B -> A"`` within one function or class.

They are Python with holes. A capital letter (but F, which is torch.nn.functional) stands for any expression, the same
at every place; ``...`` among arguments, elements or statements stands for any number of them. So neither layout nor
moved lines nor renamed variables disturb a patch. Its left side must fit one place.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

import yaml

Holes = dict[str, Any]
DEFINITIONS = (ast.ClassDef, ast.FunctionDef)


class PatchError(Exception):
    """A patch does not fit the code."""


def patched(text: str, place: str, patch: str) -> ast.Module:
    """Python ``text`` with the patch applied in ``place``: Class.function, or empty for all of it.

    Raises PatchError unless the patch fits exactly one place and changes it.
    """
    before, after = (ast.parse(side).body for side in patch.split(" -> "))
    tree = ast.parse(text)
    scope = _scope(tree, place)
    old, new = before[0], after
    if isinstance(old, ast.Expr) and isinstance(new[0], ast.Expr):
        old, new = old.value, [new[0].value]
    fits = [(node, holes) for node in ast.walk(scope) if (holes := _fit(old, node, {})) is not None]
    if len(fits) != 1:
        raise PatchError(f"{patch!r} fits {len(fits)} places in {place or 'the file'}, not one")
    node, holes = fits[0]
    fill, was = _Filled(holes), ast.dump(scope)
    filled = [fill.visit(part) for part in new]
    scope = _Replaced(node, filled if isinstance(old, ast.stmt) else filled[0]).visit(scope)
    if ast.dump(scope) == was:
        raise PatchError(f"{patch!r} changes nothing")
    return ast.fix_missing_locations(tree)


def patched_value(text: str, key: str, patch: str) -> str:
    """YAML ``text`` with the value of a dotted key changed. Raises PatchError where it is another one."""
    before, after = patch.split(" -> ")
    node: Any = yaml.compose(text)
    for part in key.split("."):
        node = next((value for name, value in node.value if name.value == part), None)
        if node is None:
            raise PatchError(f"there is no {key}")
    start, end = node.start_mark.index, node.end_mark.index
    if text[start:end] != before:
        raise PatchError(f"{key} is {text[start:end]!r}, not {before!r}")
    return text[:start] + after + text[end:]


def _scope(tree: ast.Module, place: str) -> ast.AST:
    scope: ast.AST = tree
    for name in place.split(".") if place else ():
        inner = [node for node in ast.walk(scope) if isinstance(node, DEFINITIONS) and node.name == name]
        if not inner:
            raise PatchError(f"there is no {place}")
        scope = inner[0]
    return scope


def _is_hole(node: object) -> bool:
    return isinstance(node, ast.Name) and len(node.id) == 1 and node.id.isupper() and node.id != "F"


def _is_gap(node: object) -> bool:
    if isinstance(node, ast.Expr):  # a body of statements
        node = node.value
    return isinstance(node, ast.Constant) and node.value is ...


def _fit(pattern: Any, node: Any, holes: Holes) -> Holes | None:
    """``holes`` and what else of ``node`` the pattern's holes stand for; None where it does not fit."""
    if _is_hole(pattern):
        known = holes.get(pattern.id)
        if not isinstance(node, ast.expr) or (known is not None and ast.unparse(known) != ast.unparse(node)):
            return None
        return {**holes, pattern.id: node}
    if isinstance(pattern, list):
        return _fit_all(pattern, node, holes) if isinstance(node, list) else None
    if not isinstance(pattern, ast.AST):
        return holes if type(pattern) is type(node) and pattern == node else None
    if type(pattern) is not type(node):
        return None
    result: Holes | None = holes
    for field in pattern._fields:
        if field in ("ctx", "type_comment", "kind", "type_params") or result is None:
            continue
        theirs = getattr(node, field)
        if field == "keywords" and any(map(_is_gap, pattern.args)):
            named = {keyword.arg for keyword in pattern.keywords}
            result = {**result, "keywords": [keyword for keyword in theirs if keyword.arg not in named]}
            theirs = [keyword for keyword in theirs if keyword.arg in named]
        result = _fit(getattr(pattern, field), theirs, result)
    return result


def _fit_all(patterns: list[Any], nodes: list[Any], holes: Holes) -> Holes | None:
    if not patterns:
        return None if nodes else holes
    if not _is_gap(patterns[0]):
        first = _fit(patterns[0], nodes[0], holes) if nodes else None
        return None if first is None else _fit_all(patterns[1:], nodes[1:], first)
    gap = f"...{sum(name.startswith('...') for name in holes)}"
    ways = (_fit_all(patterns[1:], nodes[end:], {**holes, gap: nodes[:end]}) for end in range(len(nodes) + 1))
    return next((way for way in ways if way is not None), None)


class _Filled(ast.NodeTransformer):
    """Puts in place of a replacement's holes what they stand for; its gaps are the pattern's, in turn."""

    def __init__(self, holes: Holes) -> None:
        self.holes = holes
        self.gaps: Iterator[Any] = iter([nodes for name, nodes in holes.items() if name.startswith("...")])

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if not _is_hole(node) or node.id not in self.holes:
            return node
        return _in_place_of(node, copy.deepcopy(self.holes[node.id]))

    def visit_Constant(self, node: ast.Constant) -> Any:
        return copy.deepcopy(next(self.gaps)) if _is_gap(node) else node

    def visit_Expr(self, node: ast.Expr) -> Any:
        return copy.deepcopy(next(self.gaps)) if _is_gap(node) else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if any(map(_is_gap, node.args)):
            node.keywords += self.holes.get("keywords", [])
        return self.generic_visit(node)


class _Replaced(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: Any) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return _in_place_of(node, self.new) if node is self.old else super().visit(node)


def _in_place_of(old: Any, new: Any) -> Any:
    if hasattr(new, "ctx"):
        new.ctx = getattr(old, "ctx", new.ctx)
    return new
