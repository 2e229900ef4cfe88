"""How long a table takes with 1,040 records, first and again: python tests/report/thousand_records.py"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from made_up import cells_of, keep, record

SEEDS = ",".join(map(str, range(16)))


def main() -> None:
    cells, configs = cells_of("table3", "paper", seeds=range(16))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keep(folder / "runs", [record(cell, config) for cell, config in zip(cells, configs, strict=True)])
        arguments = ["-m", "ssl_bench", "report", "table3", "scale=paper", f"seeds={SEEDS}", "records=null"]
        for out, what in (
            ("null", "first"),
            ("null", "again"),
            (str(folder / "out"), "with files"),
            (str(folder / "out"), "with files again"),
        ):
            started = time.perf_counter()
            command = [sys.executable, *arguments, f"runs_dir={folder / 'runs'}", f"out={out}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            print(f"{len(cells)} records, {what}: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
