"""What a person sees of a sweep: the whole grid in a terminal, a line for each event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from statistics import mean

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ssl_bench.sweep.grid import STATES, SweepRun

SYMBOLS = {"done": "✓", "running": "▶", "elsewhere": "▷", "interrupted": "‖", "failed": "✗", "left": "○"}
COLOURS = {"done": "green", "running": "cyan", "elsewhere": "blue", "interrupted": "yellow", "failed": "red"}
WORDS = {"elsewhere": "running elsewhere"}
REFRESH_SECONDS = 0.5


class View:
    """Shows ``entries``; used as a context while the sweep runs."""

    def __init__(self, console: Console, title: str, entries: Sequence[SweepRun], slots: int) -> None:
        self.console = console
        self.title = title
        self.entries = entries
        self.slots = slots
        self.live: Live | None = None
        self.drawn_at = 0.0

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self.live = Live(self.grid(), console=self.console, auto_refresh=False)
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.update(self.grid(), refresh=True)
            self.live.stop()

    def event(self, entry: SweepRun, what: str) -> None:
        """A run has come to something else; the grid shows that by itself, but for its reason."""
        reason = f" ({entry.error})" if entry.error else ""
        seconds = entry.seconds
        took = f", {duration(seconds)}" if what == "done" and seconds is not None else ""
        line = f"{entry.cell.name}: {what}{took}{reason}"
        if self.live is None:
            done = sum(entry.state == "done" for entry in self.entries)
            self.show(f"[{done}/{len(self.entries)}] {line} · {entry.folder.path}")
        elif entry.error:
            self.show(line)

    def show(self, sentence: str) -> None:
        self.console.print(escape(sentence), highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        """Draw the grid anew, now and then."""
        now = time.monotonic()
        if self.live and now - self.drawn_at > REFRESH_SECONDS:
            self.drawn_at = now
            self.live.update(self.grid(), refresh=True)

    def grid(self) -> RenderableType:
        """Rows by datasets, a symbol for each seed, and the totals."""
        datasets = list(dict.fromkeys(entry.cell.dataset for entry in self.entries))
        table = Table("", *datasets, title=self.title)
        for row in dict.fromkeys(entry.cell.row for entry in self.entries):
            mine = [[e for e in self.entries if e.kind == (row, dataset)] for dataset in datasets]
            table.add_row(escape(row), *(" ".join(map(_symbol, entries)) for entries in mine))
        return Group(table, self.totals())

    def totals(self) -> str:
        if all(entry.state in ("done", "failed") for entry in self.entries):
            return totals(self.entries)
        seconds = time_to_go(self.entries, self.slots, time.monotonic())
        left = "time to go unknown" if seconds is None else f"about {duration(seconds)} to go"
        return f"{totals(self.entries)} · {left}"


def _symbol(entry: SweepRun) -> str:
    symbol, colour = SYMBOLS[entry.state], COLOURS.get(entry.state)
    share = entry.progress() if entry.state in ("running", "elsewhere") else None
    if share is not None:
        symbol += f"{share:.0%}"
    return f"[{colour}]{symbol}[/{colour}]" if colour else symbol


def totals(entries: Sequence[SweepRun]) -> str:
    """How many runs there are and what has become of them, with the symbols."""
    counts = {state: sum(entry.state == state for entry in entries) for state in STATES}
    parts = [f"{SYMBOLS[state]} {count} {WORDS.get(state, state)}" for state, count in counts.items() if count]
    return " · ".join([f"{len(entries)} run{'s' if len(entries) != 1 else ''}", *parts])


def time_to_go(entries: Iterable[SweepRun], slots: int, now: float) -> float | None:
    """Seconds until all runs are done, by what finished ones took; None while nothing is known of some.

    A run takes as long as the finished ones of its row and dataset, else as those of its dataset.
    """
    entries = list(entries)
    done = [(entry, entry.seconds) for entry in entries if entry.seconds is not None]
    total = 0.0
    for entry in entries:
        if entry.state in ("done", "failed"):
            continue
        alike = [seconds for other, seconds in done if other.kind == entry.kind]
        alike = alike or [seconds for other, seconds in done if other.cell.dataset == entry.cell.dataset]
        if not alike:
            return None
        whole, gone = mean(alike), entry.progress() or 0.0
        if entry.state == "running":  # metrics.csv knows whole epochs only
            gone = max(gone, min(0.99, (now - entry.began) / whole if whole else 0.0) if not entry.deaths else 0.0)
        total += whole * (1.0 - gone) if entry.state != "left" else whole
    return total / max(1, min(slots, sum(entry.state not in ("done", "failed") for entry in entries)))


def duration(seconds: float) -> str:
    """In the largest unit of which there are two: 12 s, 4.0 min, 3.5 h, 2.1 days."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
