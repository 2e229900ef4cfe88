"""How a method looks in every table and picture: label, colour, line and mark, from its file in conf/method/.

A method that states none of them is called by its name and gets a colour made from it.
"""

from __future__ import annotations

import colorsys
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_bench.config.experiments import method_of
from ssl_bench.config.options import block_of
from ssl_bench.errors import UserError
from ssl_bench.report.contrast import FARTHEST, mix, seen_on

# The package's colours are after Okabe & Ito 2008 and Tol 2021, distinct for people who see few colours.
# Of the rows of one method: shares of black on a light page, of white on a dark one. The first are farthest apart.
SHADES = (0, 0.45, 0.7, 0.25, 0.57, 0.12, 0.35, 0.64, 0.2, 0.5, 0.76, 0.06, 0.3, 0.4, 0.54, 0.6, 0.16, 0.82)
# Dashes of a line, as Matplotlib takes them.
LINES: dict[str, Any] = {
    "solid": "-",
    "dashed": (0, (5, 2)),
    "mixed": (0, (6, 2, 1, 2)),
    "dotted": (0, (1, 1.4)),
    "long": (0, (9, 2)),
}
MARKS = "*os^DvPX<>hd"  # Matplotlib's
VARIANTS = (("solid", "*"), ("dashed", "o"), ("mixed", "s"), ("dotted", "^"), ("long", "D"))  # of rows of one method
FREE = tuple((line, mark) for mark in reversed(MARKS) for line in LINES)  # of a method that states none


def label(method: str) -> str:
    """What tables and figures call the method."""
    return str(block_of(method, "shown").get("label", method))


def colour(method: str) -> str:
    """``#rrggbb``."""
    made = colorsys.hls_to_rgb(hashlib.sha256(method.encode()).digest()[0] / 256, 0.45, 0.6)
    found = str(block_of(method, "shown").get("colour", "#" + "".join(f"{round(255 * part):02x}" for part in made)))
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", found):
        raise UserError(f'conf/method/{method}.yaml, shown: colour is {found}: write it as "#0072b2".')
    return found.lower()


def line_and_mark(method: str) -> tuple[str, str] | None:
    """A key of LINES and one of MARKS; None where the method's file leaves them open."""
    shown = block_of(method, "shown")
    if "line" not in shown and "mark" not in shown:
        return None
    line, mark = str(shown.get("line", "solid")), str(shown.get("mark", "o"))
    if line not in LINES or len(mark) != 1 or mark not in MARKS:
        raise UserError(
            f"conf/method/{method}.yaml, shown: line is {line}, mark is {mark}: line is one of {', '.join(LINES)}, "
            f"mark one of {' '.join(MARKS)}"
        )
    return line, mark


def row_colours(rows: Mapping[str, Sequence[str]], page: str = "light") -> dict[str, str]:
    """``#rrggbb`` by label of a table's or figure's rows: its method's colour as it is seen there, then shades of it.

    rows: label → arguments of ``python -m ssl_bench``, ``method=…`` among them. page: ``light`` or ``dark``.
    """
    seen: Counter[str] = Counter()
    found = {}
    for label, overrides in rows.items():
        method = method_of(overrides)
        share = SHADES[seen[method] % len(SHADES)]
        seen[method] += 1
        found[label] = mix(seen_on(page, colour(method)), FARTHEST[page], share)
    return found


def row_styles(rows: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, str]]:
    """A key of LINES and one of MARKS by label, so that rows are distinct without colours; arguments as above.

    The first row of a method has its method's own, if that states any; the others get, of VARIANTS where the method has
    several rows, what nobody else in the picture has.
    """
    methods = {label: method_of(overrides) for label, overrides in rows.items()}
    count = Counter(methods.values())
    first = {method: label for label, method in reversed(methods.items())}
    own = {label: line_and_mark(method) for method, label in first.items()}
    found = {label: style for label, style in own.items() if style is not None}
    for label, method in methods.items():
        if label not in found:
            open_to = (*(VARIANTS if count[method] > 1 else ()), *FREE)
            unused = (style for style in open_to if style not in found.values())
            found[label] = next(unused, FREE[len(found) % len(FREE)])
    return {label: found[label] for label in rows}
