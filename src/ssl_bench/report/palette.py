"""One colour per method, in every picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# After Okabe & Ito 2008 and Tol 2021, which people who see few colours tell apart.
METHODS = {
    "simclr": "#0072b2",
    "moco": "#56b4e9",
    "byol": "#009e73",
    "simsiam": "#cc79a7",
    "moby": "#332288",
    "barlow_twins": "#e69f00",
    "vicreg": "#999933",
    "clbo": "#d55e00",
    "pic": "#882255",
    "directpred": "#44aa99",
    "swav": "#ddcc77",
    "supervised": "#555555",
}
SHADES = (("#000000", 0.0), ("#000000", 0.45), ("#ffffff", 0.45), ("#000000", 0.75), ("#ffffff", 0.7))


def row_colours(rows: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """``#rrggbb`` by label of a table's or figure's rows: its method's colour, then shades of it.

    rows: label → words of ``python -m ssl_bench``, ``method=…`` among them.
    """
    seen: dict[str, int] = {}
    found = {}
    for label, words in rows.items():
        method = next(word.partition("=")[2] for word in words if word.startswith("method="))
        other, share = SHADES[seen.get(method, 0) % len(SHADES)]
        seen[method] = seen.get(method, 0) + 1
        found[label] = _mix(METHODS[method], other, share)
    return found


def _mix(colour: str, other: str, share: float) -> str:
    pairs = [(int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
