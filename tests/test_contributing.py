"""The method that CONTRIBUTING shows is one: it trains, and all tests of every method pass with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = re.findall(
    r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```",
    (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env={**os.environ, "SSL_BENCH_PATH": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_method_trains_and_is_certified_under_its_label(folder: Path) -> None:
    assert "Doe on digits" in run(folder, "ssl_bench", "method=doe", "scale=smoke", "epochs=1", cwd=folder)
    assert "Every method holds." in run(folder, "ssl_bench", "check", "method=doe", cwd=folder)


@pytest.mark.slow
def test_a_new_method_is_tested_as_all_others_and_listed_nowhere(folder: Path) -> None:
    """All quick tests of files that go over methods; those that name the method are its own."""
    files = ["methods", "report/test_palette.py", "results/test_code.py", "test_experiments.py", "test_preflight.py"]
    paths = [f"tests/{name}" for name in (*files, "test_step_counts.py")]
    chosen = "doe or (listed or table or rows or palette or size)"
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", chosen]
    assert " passed" in run(folder, "pytest", *options, *paths, cwd=ROOT)
