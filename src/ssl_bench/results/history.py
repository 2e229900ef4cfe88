"""The figures of one run over its epochs: what ``metrics.csv`` holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssl_bench.files import csv_text, write_text

Row = dict[str, float]


class History:
    """Rows of named figures, one per epoch, in the order of their first appearance.

    Only figures that repeat exactly belong here; timings stand in the record.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.open: Row = {}

    def add(self, figures: Row) -> None:
        """Figures of the epoch under way."""
        self.open.update(figures)

    def close(self) -> Row:
        """End the epoch under way and return its row."""
        row, self.open = self.open, {}
        self.rows.append(row)
        return row

    def forget(self, protocol: str) -> None:
        """Drop the accuracy of all epochs under this protocol."""
        for row in self.rows:
            for name in list(row):
                if is_accuracy(name) and name.split("/")[1] == protocol:
                    del row[name]

    def latest(self, name: str) -> float | None:
        """The last figure of that name, or None."""
        for row in (self.open, *reversed(self.rows)):
            if name in row:
                return row[name]
        return None

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(epoch, figure) wherever an epoch has it."""
        return [(int(row["epoch"]), row[name]) for row in self.rows if name in row]

    def accuracy_curves(self) -> dict[str, list[list[float | None]]]:
        """Points of epoch and percent by ``<split>/<protocol>/<network>``; elsewhere ``<dataset>:<split>/…``."""
        names = dict.fromkeys(name for row in self.rows for name in row if is_accuracy(name))
        return {name: [[epoch, value] for epoch, value in self.curve(name)] for name in names}

    def write(self, path: Path) -> None:
        """Write all rows as CSV; an epoch without a figure leaves its cell empty."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        # repr gives back the very same float; integers stay integers.
        rows = ([repr(row[name]) if name in row else "" for name in columns] for row in self.rows)
        write_text(path, csv_text(columns, rows))

    def state_dict(self) -> dict[str, object]:
        return {"rows": [dict(row) for row in self.rows], "open": dict(self.open)}

    def load_state_dict(self, state: dict[str, Sequence[Row] | Row]) -> None:
        self.rows = [dict(row) for row in state["rows"]]  # type: ignore[arg-type]
        self.open = dict(state["open"])  # type: ignore[arg-type]


def is_accuracy(name: str) -> bool:
    """Whether a figure of this name is an accuracy, of the run's own dataset or of another."""
    return name.partition("/")[0].rpartition(":")[2] in ("validation", "test")
