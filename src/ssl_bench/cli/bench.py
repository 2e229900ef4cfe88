"""python -m ssl_bench bench: see ``--help``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ssl_bench
from ssl_bench.config.settings import near_or_all, read_settings, settings_text
from ssl_bench.entry import run_command
from ssl_bench.errors import UserError

# One file each, with a function ``measure``; in the order in which all of them run. HOST_ONLY know no other device.
HOST_ONLY = ("loading", "packing")
BENCHMARKS = {
    "step": "a training step against the same step in plain float32",
    "program": "the whole program against a bare training loop",
    "augment": "views drawn in batches against PIL images one by one",
    "knn": "exact nearest neighbours against scikit-learn",
    "probe": "the linear probe against scikit-learn",
    "teacher": "the teacher's update as a share of a training step",
    "instances": "a step of PIC with many instances against one with few",
    "methods": "a training step of each method against SimCLR's",
    "loading": "a dataset read from its archive against the same unchecked",
    "packing": "pictures packed into a file against pictures decoded anew",
}
ROOT = Path(ssl_bench.__file__).parents[2]  # of a checkout
BUSY = 0.7  # processes that wait for a processor; above it they slow the two sides by chance


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the arguments, then measure, print and save; returns the exit status."""
    return run_command(arguments, help_text, lambda given: run(*read(given)))


def read(given: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Benchmarks to run, all where none is named, and the options; UserError for what is neither."""
    names = [argument for argument in given if "=" not in argument]
    for name in names:
        if name not in BENCHMARKS:
            raise UserError(f"benchmark {name} is unknown{near_or_all(name, BENCHMARKS)}")
    settings = read_settings("bench.yaml", [argument for argument in given if "=" in argument])
    return list(dict.fromkeys(names)) or list(BENCHMARKS), settings


def help_text() -> str:
    """Usage, benchmarks, options."""
    lines = ["python -m ssl_bench bench [benchmark ...] [key=value ...]", "", "Benchmarks; all of them without a name:"]
    lines += [f"  {name:<14}{meaning}" for name, meaning in BENCHMARKS.items()]
    return "\n".join([*lines, "", "Options, with the allowed values:", *settings_text("bench.yaml")])


def run(names: Sequence[str], settings: dict[str, Any]) -> None:
    """Measure, print a table and, with ``out``, save results and picture; UserError outside a checkout."""
    if not (ROOT / "benchmarks" / "measurement.py").exists():
        raise UserError("the benchmarks are not installed with the package: run them in a clone of the repository.")
    sys.path.insert(0, str(ROOT))
    import torch
    from benchmarks.measurement import Measurement
    from rich.console import Console

    from benchmarks import report
    from ssl_bench.devices import resolve_device

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    console = Console()
    device = resolve_device(settings["device"], "device").type
    console.print(report.machine(device), highlight=False, soft_wrap=True)
    if load is not None and load > BUSY:
        console.print(f"warning: other processes are running (load {load:.1f}); figures will be off.", style="yellow")
    if settings["size"] == "small":
        console.print("warning: size=small only shows that everything runs; its figures mean nothing.", style="yellow")
    found: list[Measurement] = []
    for name in names:
        console.print(f"measuring: {BENCHMARKS[name]}", highlight=False)
        benchmark = importlib.import_module(f"benchmarks.{name}")
        place = {} if name in HOST_ONLY else {"device": torch.device(device)}
        measured: list[Measurement] = benchmark.measure(settings["repeats"], small=settings["size"] == "small", **place)
        if device == "cuda":
            measured = [replace(one, target=None) for one in measured]
        found += measured
        if settings["out"]:  # after each, so that an interruption loses one benchmark and not all
            report.save(Path(settings["out"]), measured, size=settings["size"], load=load, device=device)
    console.print(report.table(found))
