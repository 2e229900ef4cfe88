"""The README's picture of the page, drawn by Chromium: python tests/report/page_picture.py SITE PICTURE"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

VIEW = "cost?experiment=table3&dataset=cifar10&protocol=linear&by=core_seconds"
SIZE = {"width": 1000, "height": 850}


def main(site: str, picture: str) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
        tab.goto(f"{(Path(site) / 'index.html').absolute().as_uri()}#{VIEW}")
        tab.wait_for_selector("[data-view=cost] svg [data-mark=dot]")
        tab.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
