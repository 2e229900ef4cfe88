"""Colours of lines and marks that are seen on a light and on a dark page."""

from __future__ import annotations

LEAST = 3.0  # contrast of lines and marks with the page (WCAG 2.2, 1.4.11)
PAGES = {"light": "#ffffff", "dark": "#14171c"}  # backgrounds, as in page.css; pictures are light
FARTHEST = {"light": "#000000", "dark": "#ffffff"}


def seen_on(page: str, colour: str) -> str:
    """``colour`` itself, or so much darker (on the light page) or lighter that its contrast is LEAST; ``#rrggbb``."""
    shades = (mix(colour, FARTHEST[page], share / 20) for share in range(21))
    return next(shade for shade in shades if contrast(shade, PAGES[page]) >= LEAST)


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminances, as WCAG 2.2 defines it."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def mix(colour: str, other: str, share: float) -> str:
    """``colour`` with a ``share`` of the ``other``, all as ``#rrggbb``."""
    pairs = [(int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
