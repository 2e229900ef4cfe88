"""Colours of lines that are seen on a light and on a dark page."""

from __future__ import annotations

from ssl_bench.report.palette import mix

LEAST = 3.0  # contrast of lines and marks with the page (WCAG 2.2, 1.4.11)
PAGES = {"light": "#ffffff", "dark": "#14171c"}  # backgrounds, as in page.css
FARTHEST = {"light": "#000000", "dark": "#ffffff"}


def on_both(colour: str) -> dict[str, str]:
    """``#rrggbb`` on a light and a dark page: ``colour`` itself, or so much darker or lighter that it is seen there."""
    found = {}
    for page, background in PAGES.items():
        shares = (share / 20 for share in range(21))
        found[page] = next(
            mixed for share in shares if contrast(mixed := mix(colour, FARTHEST[page], share), background) >= LEAST
        )
    return found


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminances, as WCAG 2.2 defines it."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
