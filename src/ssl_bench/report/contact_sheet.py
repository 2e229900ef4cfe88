"""A picture of images beside their views: augmentation as one sees it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssl_bench.augment.draws import ViewGroup
from ssl_bench.report.figures import drawable, save

Pixels = NDArray[np.uint8]  # [S, S, 3]

DPI = 100
TILE = 96  # pixels of the picture that a view has at least; small ones are magnified by a whole number
MARGIN, GAP, WIDE_GAP = 24, 6, 22
CAPTION, LINE, TITLE, HEAD = 20, 16, 30, 24  # heights of a row of text
LETTER = 6.2  # mean width of a letter of the small size
INK, PALE, FRAME = "#1b1b1b", "#6b6b6b", 208


@dataclass(frozen=True, slots=True)
class Row:
    """One image: as evaluation sees it, what it is called, and its views by draw."""

    clean: Pixels
    name: str
    draws: Sequence[Sequence[Pixels]]


def contact_sheet(path: Path, rows: Sequence[Row], *, title: str, lines: Sequence[str]) -> None:
    """Draw every row pixel by pixel, magnified alike; ``lines`` stand below the title."""
    most = max(rows, key=lambda row: len(row.draws))
    sides = [view.shape[0] for row in rows for view in (row.clean, *(view for draw in row.draws for view in draw))]
    factor = max(1, round(TILE / max(sides)))
    tile = factor * max(sides)
    groups = [[factor * view.shape[1] for view in draw] for draw in ([most.clean], *most.draws)]
    starts, right = [], MARGIN
    for group in groups:
        starts.append(right)
        right += sum(group) + GAP * (len(group) - 1) + WIDE_GAP
    width = max(right - WIDE_GAP + MARGIN, 640)
    text = [part for line in lines for part in textwrap.wrap(line, int((width - 2 * MARGIN) / LETTER))]
    top = MARGIN + TITLE + LINE * len(text) + 10 + HEAD
    step = tile + CAPTION
    height = top + step * len(rows) + MARGIN - GAP

    canvas = np.full((height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def write(x: float, y: float, text: str, size: float, colour: str = INK, weight: str = "normal") -> None:
        # A class may be called $cash$, which is no formula.
        style: dict[str, Any] = {
            "fontsize": size,
            "color": colour,
            "weight": weight,
            "va": "baseline",
            "parse_math": False,
        }
        figure.text(x / width, 1 - y / height, text, **style)

    write(MARGIN, MARGIN + 12, title, 13, weight="bold")
    for number, part in enumerate(text):
        write(MARGIN, MARGIN + TITLE + LINE * number + 6, part, 8.2, PALE)
    for number, start in enumerate(starts):
        head = "evaluation" if not number else f"look {number}"
        write(start, top - 8, head, 8.2, weight="bold")
    for number, row in enumerate(rows):
        y = top + step * number
        for start, draw in zip(starts, ([row.clean], *row.draws), strict=False):
            x = start
            for view in draw:
                side = factor * view.shape[0]
                _place(canvas, view, x, y + (tile - side) // 2, factor)
                x += side + GAP
        room = int(starts[1] - MARGIN - GAP) if len(starts) > 1 else tile
        write(MARGIN, y + tile + 13, drawable(row.name, max(4, int(room / LETTER))), 8.2)
    figure.figimage(canvas, 0, 0, origin="upper", zorder=-1)
    save(path, figure, dpi=DPI)


def _place(canvas: Pixels, view: Pixels, x: int, y: int, factor: int) -> None:
    """Put a magnified view and a hairline around it."""
    large = view.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = large.shape[:2]
    canvas[y - 1 : y + height + 1, x - 1 : x + width + 1] = FRAME
    canvas[y : y + height, x : x + width] = large


def in_words(group: ViewGroup, channels: int) -> str:
    """What is drawn at random for a view; operations that do nothing to gray images are left out for them."""
    low, high = group.crop_scale
    ratio = "–".join(f"{side:.3g}" for side in group.crop_ratio)
    parts = [f"crop of {_percent(low)}–{_percent(high)} % of the area, width : height {ratio}"]
    parts.append(f"flip {_chance(group.flip)}" if group.flip else "no flip")
    strengths = {"brightness": group.brightness, "contrast": group.contrast}
    if channels == 3:
        strengths["saturation"] = group.saturation
    jitter = [f"{name} ±{_percent(strength)} %" for name, strength in strengths.items() if strength]
    if channels == 3 and group.hue:
        jitter.append(f"hue ±{360 * group.hue:.0f}°")
    parts.append(f"{', '.join(jitter)} {_chance(group.jitter)}" if group.jitter and jitter else "no colour jitter")
    if channels == 3 and group.grayscale:
        parts.append(f"gray {_chance(group.grayscale)}")
    sigma = "–".join(f"{value:g}" for value in group.blur_sigma)
    parts.append(f"blur of {sigma} pixels {_chance(group.blur)}" if group.blur else "no blur")
    if group.solarize:
        parts.append(f"solarised above {_percent(group.solarize_threshold)} % {_chance(group.solarize)}")
    return "; ".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}"


def _chance(probability: float) -> str:
    return "always" if probability == 1 else f"with p = {probability:g}"
