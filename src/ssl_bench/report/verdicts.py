"""Which rows of a table differ, as pictures: differences to the best with intervals, and ranks over all columns."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ssl_bench.report.comparison import Columns
from ssl_bench.report.statistics import ALPHA, FEWEST, critical_difference, distinguished, interval, mean_ranks

LETTERS = 13  # of a title, to the inch


def in_all_columns(compared: Columns) -> list[str]:
    """The rows that stand in every column, which can be ranked."""
    every = [scores.keys() for scores, _ in compared.values()]
    return [row for row in every[0] if all(row in rows for rows in every)]


def can_differ(compared: Columns) -> bool:
    """Whether any two mean ranks of so many rows over so many columns could differ by Nemenyi's test."""
    rows = in_all_columns(compared)
    return len(rows) > 1 and critical_difference(len(rows), len(compared)) < len(rows) - 1


def forest(path: Path, title: str, compared: Columns) -> None:
    """Draw each row's difference to the highest mean of its column, with its 95 % interval."""
    from matplotlib.figure import Figure

    from ssl_bench.report.figures import save

    rows = list(dict.fromkeys(row for scores, _ in compared.values() for row in scores))
    width = 2 + 2.6 * len(compared)
    words = [
        title,
        f"difference to the highest mean (◆) with its {1 - ALPHA:.0%} interval, paired by seed",
        "● differs significantly from it after Holm's correction, ○ is not shown to",
    ]
    lines = [line for one in words for line in textwrap.wrap(one, int(LETTERS * width))]
    figure = Figure(figsize=(width, 0.8 + 0.17 * len(lines) + 0.26 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(compared), sharey=True, squeeze=False)[0]
    for axes, (heading, (scores, step)) in zip(panels, compared.items(), strict=True):
        highest, apart = distinguished(scores, step=step)
        axes.axvline(0, color="0.6", linewidth=0.8)
        for place, row in enumerate(rows):
            if highest is None or row not in scores or len(scores[row].keys() & scores[highest].keys()) < FEWEST:
                continue
            if row == highest:
                axes.plot(0, place, "D", color="black", markersize=5)
                continue
            mean, half = interval(scores[row], scores[highest], step=step)
            face = "black" if row in apart else "white"
            axes.errorbar(
                mean, place, xerr=half, fmt="o", color="black", markerfacecolor=face, markersize=4.5, linewidth=1
            )
        axes.set_title(heading, fontsize=9)
        axes.set_xlabel("points", fontsize=8)
        axes.tick_params(labelsize=8)
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle("\n".join(lines), fontsize=9)
    save(path, figure, dpi=130)


def ranking(path: Path, title: str, compared: Columns) -> None:
    """Draw the mean rank of each row over all columns, with bars over those not significantly apart (Demšar 2006)."""
    from matplotlib.figure import Figure

    from ssl_bench.report.figures import save

    ranks, critical = mean_ranks(
        [
            {row: statistics.fmean(by_seed.values()) for row, by_seed in scores.items()}
            for scores, _ in compared.values()
        ]
    )
    ordered = sorted(ranks, key=lambda row: ranks[row])
    left_out = dict.fromkeys(row for scores, _ in compared.values() for row in scores if row not in ranks)
    bars = groups([ranks[row] for row in ordered], critical)
    figure = Figure(figsize=(7, 1.3 + 0.24 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(ordered):
        axes.plot([ranks[row], ranks[row]], [-0.5, place], color="0.8", linewidth=0.8, zorder=0)
        axes.plot(ranks[row], place, "o", color="black", markersize=4.5)
        axes.annotate(
            f"{row}  {ranks[row]:.1f}", (ranks[row], place), (6, 0), textcoords="offset points", fontsize=8, va="center"
        )
    for number, (first, last) in enumerate(bars):
        y = -1 - 0.5 * number
        axes.plot([ranks[ordered[first]] - 0.05, ranks[ordered[last]] + 0.05], [y, y], color="black", linewidth=3)
    axes.set_xlim(0.8, len(ordered) + 1.6)
    axes.set_ylim(len(ordered) - 0.4, -1.5 - 0.5 * len(bars))
    axes.set_yticks([])
    axes.set_xticks(range(1, len(ordered) + 1))
    axes.tick_params(labelsize=8)
    axes.spines[["left", "right", "bottom"]].set_visible(False)
    axes.xaxis.tick_top()
    axes.set_title(
        f"{title}: mean rank over {len(compared)} columns, 1 the highest\n"
        "Bars join rows that do not differ significantly by Nemenyi's test "
        f"(critical difference {critical:.1f}, α = {ALPHA:g});\n"
        "columns of one dataset are not independent, so that less is certain than that"
        + (f"\nnot ranked, for they are not in every column: {', '.join(left_out)}" if left_out else ""),
        fontsize=9,
    )
    save(path, figure, dpi=130)


def groups(ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """First and last place of the longest runs of ascending ``ranks`` that differ by less than ``critical``."""
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(place for place, other in enumerate(ranks) if other - rank < critical)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
