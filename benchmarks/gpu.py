"""The sections of gpu.sh one after another, each in a process and a time limit of its own.

python gpu.py [SECTION ...]: all sections without a name, in the order of what they prove. A section that fails, hangs
or breaks the device leaves the next ones alone. What it has found by then is in gpu.json in the folder $OUT already.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

TOTAL = float(os.environ.get("TOTAL", "480"))  # seconds of all sections together
GRACE = 10  # seconds after its limit when a section is killed
FILE = Path(os.environ.get("OUT", ".")) / "gpu.json"
# The file of each section and its largest number of seconds; it begins only if a fifth of them is left.
SECTIONS = {
    "machine": ("gpu_speed", 30),
    "views": ("gpu_speed", 40),
    "correctness": ("gpu_right", 90),
    "demo": ("gpu_right", 60),
    "resume": ("gpu_right", 60),
    "ranks": ("gpu_right", 120),
    "sync_batchnorm": ("gpu_right", 60),
    "speed": ("gpu_speed", 150),
    "paths": ("gpu_speed", 60),
    "neighbours": ("gpu_speed", 30),
    "determinism": ("gpu_speed", 60),
    "compile": ("gpu_speed", 90),
    "training": ("gpu_speed", 540),
}


def read() -> dict[str, dict[str, Any]]:
    """What has been found, by section."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def write(found: dict[str, dict[str, Any]]) -> None:
    """Put ``found`` in place of what the file holds."""
    temporary = FILE.with_suffix(".tmp")
    temporary.write_text(json.dumps(found, indent=1, default=str) + "\n")
    os.replace(temporary, FILE)


def tell(section: str, name: str, value: Any) -> None:
    """Print one finding, and keep it at once."""
    found = read()
    found.setdefault(section, {})[name] = value
    write(found)
    shown = f"{value:.4g}" if isinstance(value, float) else json.dumps(value, default=str)
    print(f"    {name}: {shown}", flush=True)


def perform(section: str, until: float) -> None:
    """The work of a process: one section."""
    os.setsid()  # its own processes end with it
    try:
        work = getattr(importlib.import_module(SECTIONS[section][0]), section)
        work(lambda name, value: tell(section, name, value), until)
    except BaseException as error:
        traceback.print_exc()
        tell(section, "FAILED", f"{type(error).__name__}: {str(error)[:500]}")


def main() -> int:
    """All sections that were asked for; 1 if one did not end well or found something wrong."""
    began = time.monotonic()
    unknown = [name for name in sys.argv[1:] if name not in SECTIONS]
    if unknown:
        print(f"section {unknown[0]} is unknown; known are {', '.join(SECTIONS)}.")
        return 2
    chosen = sys.argv[1:] or list(SECTIONS)
    write({name: rows for name, rows in read().items() if name not in chosen})
    # Imported once and before CUDA is touched, so that processes can be forked which find it untouched.
    for file in {file for file, _ in SECTIONS.values()}:
        importlib.import_module(file)
    failed = []
    for section in chosen:
        left = TOTAL - (time.monotonic() - began)
        most = SECTIONS[section][1]
        limit = min(most, left)
        if limit < most / 5:
            tell(section, "LEFT OUT", f"{left:.0f} seconds were left")
            continue
        print(f"-- {section}, at most {limit:.0f} seconds", flush=True)
        started = time.monotonic()
        process = multiprocessing.get_context("fork").Process(target=perform, args=(section, started + limit))
        process.start()
        try:
            process.join(limit + GRACE)  # sections keep their own time; this is for those that hang
        finally:
            if process.exitcode is None:
                tell(section, "FAILED", f"not over after {limit + GRACE:.0f} seconds")
                end(process)
        if process.exitcode and "FAILED" not in read().get(section, {}):
            tell(section, "FAILED", f"the process ended with {process.exitcode}")
        tell(section, "seconds", round(time.monotonic() - started, 1))
        if not held(read()[section]):
            failed.append(section)
    print(f"all in {FILE}" + (f"; not as it should be: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def held(rows: dict[str, Any]) -> bool:
    """Whether a section ended well, and all that it judged was right."""
    verdicts = [row.get("holds") if isinstance(row, dict) else row for row in rows.values()]
    return "FAILED" not in rows and not any(verdict is False for verdict in verdicts)


def end(process: multiprocessing.process.BaseProcess) -> None:
    """Kill the section's process and those it has started."""
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


if __name__ == "__main__":
    sys.exit(main())
