"""The program as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Program = Callable[..., "subprocess.CompletedProcess[str]"]


def program_in(folder: Path) -> Program:
    """Run ``python -m ssl_bench`` (or another module) in ``folder`` and wait for it."""

    def run(*overrides: str, module: str = "ssl_bench", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *overrides],
            cwd=folder,
            env={**os.environ, "COLUMNS": "200", **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run
