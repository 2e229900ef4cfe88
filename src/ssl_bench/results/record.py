"""What one run leaves behind for tables and for those who doubt them."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import ssl_bench
from ssl_bench.files import write_text

LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "scikit-learn")


def environment() -> dict[str, Any]:
    """Versions and hardware; no host name, user or path."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": cuda,
    }


@functools.cache
def code_version() -> dict[str, Any]:
    """The package's version and, in a git checkout, its commit and whether files differ from it, when first asked."""
    folder = Path(ssl_bench.__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or _git(folder, "ls-files", "__init__.py") != "__init__.py":
        return {"version": ssl_bench.__version__, "commit": None, "modified": None}
    changes = _git(folder, "status", "--porcelain", "--", "..", "../../conf") or ""
    return {"version": ssl_bench.__version__, "commit": commit, "modified": bool(changes)}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def peak_memory() -> int | None:
    """Largest resident memory of this process so far in bytes, or None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without where things lie on this machine."""
    places = ("runs_dir", "data_dir", "root", "test_root")
    return {
        key: without_places(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in places
    }


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record as JSON; numbers that are not finite become null, for JSON has none."""
    write_text(path, json.dumps(_finite(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
