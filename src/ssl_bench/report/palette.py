"""How a method looks in every table and picture: label, colour, line and mark, from its file in conf/method/.

A method that states none of them is called by its name and gets a colour made from it.
"""

from __future__ import annotations

import colorsys
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_bench.config.experiments import method_of
from ssl_bench.config.options import block_of
from ssl_bench.errors import UserError

# The package's colours are after Okabe & Ito 2008 and Tol 2021, distinct for people who see few colours.
SHADES = (
    *(("#000000", 0.0), ("#000000", 0.45), ("#ffffff", 0.45), ("#000000", 0.75), ("#ffffff", 0.7)),
    *(("#000000", 0.2), ("#ffffff", 0.2), ("#000000", 0.6), ("#ffffff", 0.57), ("#000000", 0.32)),
    *(("#ffffff", 0.32), ("#000000", 0.52), ("#ffffff", 0.1), ("#000000", 0.1), ("#ffffff", 0.64)),
    *(("#000000", 0.68), ("#ffffff", 0.26), ("#000000", 0.26)),
)
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


def row_colours(rows: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """``#rrggbb`` by label of a table's or figure's rows: its method's colour, then shades of it.

    rows: label → arguments of ``python -m ssl_bench``, ``method=…`` among them.
    """
    seen: dict[str, int] = {}
    found = {}
    for label, words in rows.items():
        method = method_of(words)
        other, share = SHADES[seen.get(method, 0) % len(SHADES)]
        seen[method] = seen.get(method, 0) + 1
        found[label] = mix(colour(method), other, share)
    return found


def row_styles(rows: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, str]]:
    """A key of LINES and one of MARKS by label, so that rows are distinct without colours; arguments as above.

    A method with one row has its own; the rows of a method with several share out the first ones, and methods that
    leave theirs open the ones that nobody has.
    """
    methods = {label: method_of(words) for label, words in rows.items()}
    found: dict[str, tuple[str, str]] = {}
    for label, method in methods.items():
        alike = [other for other, its in methods.items() if its == method]
        own = line_and_mark(method) if len(alike) == 1 else VARIANTS[alike.index(label) % len(VARIANTS)]
        if own is not None:
            found[label] = own
    free = ((line, mark) for mark in reversed(MARKS) for line in LINES)
    for label in methods:
        found[label] = found.get(label) or next(style for style in free if style not in found.values())
    return {label: found[label] for label in rows}


def mix(colour: str, other: str, share: float) -> str:
    """``colour`` with a ``share`` of the ``other``, all as ``#rrggbb``."""
    pairs = [(int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
