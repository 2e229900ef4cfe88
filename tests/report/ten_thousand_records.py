"""How long the page of 10,400 records takes to make and to open: python tests/report/ten_thousand_records.py"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from made_up import cells_of, keep, record
from playwright.sync_api import sync_playwright

VIEWS = {"findings": "h2", "runs": ".view table", "tables": ".view table", "cost": ".view svg"}


def main() -> None:
    cells, configs = cells_of("table3", "paper", seeds=range(160))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs = {"student_steps": 20, "train_seconds": 60.0}
        keep(folder / "runs", [record(cell, config, **costs) for cell, config in zip(cells, configs, strict=True)])
        started = time.perf_counter()
        command = [sys.executable, "-m", "ssl_bench", "page", f"runs_dir={folder / 'runs'}", f"out={folder / 'site'}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        size = sum(file.stat().st_size for file in (folder / "site").rglob("*") if file.is_file())
        print(f"{len(cells)} records: made in {time.perf_counter() - started:.1f} s, {size / 1e6:.1f} MB", flush=True)
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for view, shown in VIEWS.items():
                tab = browser.new_page()
                started = time.perf_counter()
                tab.goto(f"{(folder / 'site' / 'index.html').as_uri()}#{view}")
                tab.wait_for_selector(f"[data-view={view}] {shown}", timeout=60_000)
                print(f"{view}: shown after {time.perf_counter() - started:.1f} s", flush=True)
                tab.close()
            browser.close()


if __name__ == "__main__":
    main()
