"""One entry of the contest in experiments/speedrun: which accuracy does it reach, after how many seconds?

python -m benchmarks.speedrun ENTRY [SEED ...] [data_dir=FOLDER]: seeds 0 to 4 unless some are named. Each seed is a
process of its own; its time runs from the start of the process to the last checkpoint, which training leaves at its
end. Every finished seed takes the place of an earlier one of the same entry in results.csv.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from ssl_bench.results.record import Record

FOLDER = Path(__file__).parents[1] / "experiments" / "speedrun"
CORES = 2
COLUMNS = ("entry", "seed", "knn200", "seconds", "device", "torch", "commit", "options")


def main(arguments: list[str]) -> int:
    """Run the seeds one after another; 0 if all finished."""
    entries: dict[str, str] = yaml.safe_load((FOLDER / "entries.yaml").read_text(encoding="utf-8"))
    if not arguments or arguments[0] not in entries:
        print(f"speedrun: name one of these entries: {', '.join(entries)}.", file=sys.stderr)
        return 2
    entry, where = arguments[0], [argument for argument in arguments if argument.startswith("data_dir=")]
    asked = [argument for argument in arguments[1:] if argument not in where]
    if wrong := [argument for argument in asked if not argument.isdigit()]:
        print(f"speedrun: {wrong[0]} is no seed; write numbers behind the entry, such as 0 1 2.", file=sys.stderr)
        return 2
    seeds = [int(argument) for argument in asked] or list(range(5))
    if "trainer.accelerator=gpu" not in entries[entry].split() and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    for seed in seeds:
        row = run(entry, seed, entries[entry].split(), where)
        if row is None:
            return 1
        keep(row)
        print(f"{entry}, seed {seed}: knn200 {row['knn200']} % of test images after {row['seconds']} s", flush=True)
    return 0


def run(entry: str, seed: int, options: list[str], where: list[str]) -> dict[str, str] | None:
    """A line of results.csv, or None if the run failed."""
    with tempfile.TemporaryDirectory(prefix="ssl_bench-") as folder:
        command = [sys.executable, "-m", "ssl_bench", *options, *where, f"seed={seed}", f"runs_dir={folder}"]
        started = time.time()
        if subprocess.run(command, check=False).returncode:
            return None
        (file,) = Path(folder).glob("*/record.json")
        seconds = (file.parent / "checkpoints" / "last.ckpt").stat().st_mtime - started
        record = Record.read(file, file.parent.name)
    return {
        "entry": entry,
        "seed": str(seed),
        "knn200": f"{record.results[record.evaluated]['knn200']:.2f}",
        "seconds": f"{seconds:.0f}",
        "device": record.environment["accelerator"] or f"{CORES} cores, {record.environment['cpu_capability']}",
        "torch": record.environment["libraries"]["torch"],
        "commit": record.code["commit"][:7] + (" (modified)" if record.code["modified"] else ""),
        "options": " ".join(options),
    }


def keep(row: dict[str, str]) -> None:
    """Put ``row`` into results.csv, in order of entries and seeds."""
    file = FOLDER / "results.csv"
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines())) if file.exists() else []
    rows = [other for other in rows if (other["entry"], other["seed"]) != (row["entry"], row["seed"])]
    rows = sorted([*rows, row], key=lambda one: (one["entry"], int(one["seed"])))
    temporary = file.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
