"""Measurements as a table, a CSV file and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from benchmarks.measurement import Measurement
from ssl_bench.errors import UserError
from ssl_bench.files import write_text
from ssl_bench.report.figures import save as save_picture
from ssl_bench.results.record import code_version, environment

COLUMNS = (
    "benchmark",
    "case",
    "ours",
    "baseline",
    "unit",
    "median",
    "min",
    "max",
    "baseline_median",
    "baseline_min",
    "baseline_max",
    "ratio",
    "ratio_min",
    "ratio_max",
    "meaning",
    "target",
    "repeats",
    "size",
    "load",
    "machine",
    "versions",
    "commit",
    "date",
)
Row = dict[str, str]


def machine(device: str) -> str:
    """Card, cores, threads, instruction set and library versions in one line; no host name."""
    return f"{_hardware(device)} · {_versions()}"


def _hardware(device: str) -> str:
    found = environment()
    card = f"{found['accelerator']}, " if device == "cuda" else ""
    return f"{card}{found['cores']} cores, {found['threads']} threads, {found['machine']} {found['cpu_capability']}"


def _card(hardware: str) -> str:
    """The card that ``_hardware`` names, "" for none."""
    return hardware.rpartition(" cores, ")[0].rpartition(", ")[0]


def _versions() -> str:
    found = environment()
    libraries = {"python": found["python"], **found["libraries"], "pillow": metadata.version("pillow")}
    return ", ".join(f"{name} {version}" for name, version in libraries.items())


def table(measurements: Sequence[Measurement]) -> Table:
    """Median and range of both sides, and of the ratios of pairs."""
    found = Table(title="median (lowest – highest)")
    for name in ("", "case", "ours", "baseline", "ratio", "target", ""):
        found.add_column(name, justify="left" if name in ("", "case") else "right")
    for one in measurements:
        found.add_row(
            one.benchmark,
            one.case,
            f"{_spread(one.values)} {one.unit}",
            f"{_spread(one.baseline_values)} {one.unit}",
            _spread(one.ratios),
            str(one.target or ""),
            {True: "reached", False: "missed", None: ""}[one.reached],
        )
    return found


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(median(values))} ({_number(min(values))} – {_number(max(values))})"


def _number(value: float) -> str:
    """Three digits, more only before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def save(folder: Path, measurements: Sequence[Measurement], *, size: str, load: float | None, device: str) -> None:
    """Put the measurements in place of earlier ones of the same benchmark on the same device, and draw all there are.

    Cards of another name are other devices.
    """
    path = folder / "results.csv"
    new = [_row(one, size, load, device) for one in measurements]
    measured = {(row["benchmark"], _card(row["machine"])) for row in new}
    rows = [row for row in read(path) if (row["benchmark"], _card(row["machine"])) not in measured] + new
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
    picture(folder / "ratios.png", rows)


def read(path: Path) -> list[Row]:
    """The rows of a results file, none where there is no file; UserError for a file of another kind."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{path} does not hold measurements of this version: move it away or choose another out.")
        return list(reader)


def _row(one: Measurement, size: str, load: float | None, device: str) -> Row:
    figures: dict[str, Any] = {}
    for prefix, values in (("", one.values), ("baseline_", one.baseline_values)):
        figures |= {f"{prefix}median": median(values), f"{prefix}min": min(values), f"{prefix}max": max(values)}
    figures |= {"ratio": one.ratio, "ratio_min": min(one.ratios), "ratio_max": max(one.ratios)}
    return {
        "benchmark": one.benchmark,
        "case": one.case,
        "ours": one.ours,
        "baseline": one.baseline,
        "unit": one.unit,
        **{name: f"{value:.5g}" for name, value in figures.items()},
        "meaning": one.meaning,
        "target": str(one.target or ""),
        "repeats": str(len(one.values)),
        "size": size,
        "load": "" if load is None else f"{load:.2f}",
        "machine": _hardware(device),
        "versions": _versions(),
        "commit": _commit(),
        "date": date.today().isoformat(),
    }


def _commit() -> str:
    code = code_version()
    return f"{(code['commit'] or code['version'])[:12]}{' modified' if code['modified'] else ''}"


def picture(path: Path, rows: Sequence[Row]) -> None:
    """Bars of ratios with their ranges and targets, one panel for each meaning of a ratio."""
    panels: dict[str, list[Row]] = {}
    for row in rows:
        if row["meaning"]:
            panels.setdefault(row["meaning"], []).append(row)
    if not panels:
        return
    figure = Figure(figsize=(9.5, 0.9 * len(panels) + 0.42 * sum(map(len, panels.values()))), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(panels), squeeze=False, height_ratios=[len(bars) + 1 for bars in panels.values()])
    for axes, (meaning, bars) in zip(all_axes.flat, panels.items(), strict=True):
        _panel(axes, meaning, bars)
    figure.suptitle("Medians; whiskers from lowest to highest", fontsize=9)
    save_picture(path, figure, dpi=120)


def _panel(axes: Any, meaning: str, rows: Sequence[Row]) -> None:
    ratios, lowest, highest = ([float(row[name]) for row in rows] for name in ("ratio", "ratio_min", "ratio_max"))
    places = range(len(rows))
    ends = [
        [ratio - low for ratio, low in zip(ratios, lowest, strict=True)],
        [high - ratio for ratio, high in zip(ratios, highest, strict=True)],
    ]
    axes.barh(places, ratios, xerr=ends, height=0.6, color="#4c78a8", error_kw={"ecolor": "#222222", "capsize": 2.5})
    targets = [float(row["target"].split()[1]) if row["target"] else None for row in rows]
    for place, target in zip(places, targets, strict=True):
        if target is not None:
            axes.plot([target, target], [place - 0.42, place + 0.42], color="black", linewidth=2)
    right = 1.12 * max(*highest, *(target or 0 for target in targets))
    axes.set_xlim(0, right)
    wide = 0.08 * right  # what a number takes
    for place, ratio, high, target in zip(places, ratios, highest, targets, strict=True):
        hidden = target is not None and high < target + 0.01 * right < high + wide + 0.02 * right
        at = (target if hidden and target else high) + 0.01 * right
        axes.text(at, place, _number(ratio), va="center", fontsize=8)
    names = [
        f"{row['benchmark']}: {row['case']}" + (f" ({card})" if (card := _card(row["machine"])) else "") for row in rows
    ]
    axes.set_yticks(places, names, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.invert_yaxis()
    stated = " (line: target)" if any(target is not None for target in targets) else ""
    axes.set_title(f"{meaning}{stated}", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
