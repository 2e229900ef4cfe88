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

import ssl_bench
from ssl_bench.files import write_text
from ssl_bench.results.code import versions_of
from ssl_bench.results.fingerprint import fingerprint_of_record

Record = dict[str, Any]
# What every record has, of all that is read of one.
FIELDS: dict[str, type] = {
    "method": str,
    "dataset": str,
    "scale": str,
    "seed": int,
    "fingerprint": str,
    "evaluated": str,
    "results": dict,
    "protocols": dict,
    "curves": dict,
    "numerics": int,
    "precision": str,
    "batch_statistics": str,
    "processes": int,
    "data_digest": str,
    "images": dict,
    "code": dict,
    "environment": dict,
    "config": dict,
}
LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "scikit-learn")


def environment() -> dict[str, Any]:
    """Versions and hardware; no host name, user or path."""
    import torch  # records are read without it

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


# -- written and read -----------------------------------------------------------------------------


def read_record(path: Path, name: str) -> Record:
    """The record of the finished run ``name``.

    Raises:
        ValueError: the file holds none, or that of another run; the message says what is wrong with it.
    """
    try:
        return _checked(json.loads(path.read_text(encoding="utf-8")), name)
    except MISFITS as error:
        raise ValueError(misfit(error)) from None


# What reading and looking into a file raises where it is not of the shape that it should be.
MISFITS = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


def misfit(error: Exception) -> str:
    """What is wrong with the file, by one of MISFITS."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error).splitlines()[0]


def _checked(record: Any, name: str) -> Record:
    """``record`` if it is one, of the run ``name``; ValueError, or what its shape leads to, if not."""
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    for key, kind in FIELDS.items():
        if not isinstance(record.get(key), kind):
            raise ValueError(f"it has no {key}" if record.get(key) is None else f"its {key} is no {kind.__name__}")
    if record["fingerprint"] != name:
        raise ValueError(f"it belongs to run {record['fingerprint']}")
    if fingerprint_of_record(record) != name:
        raise ValueError("its configuration, data or precision is that of another run")
    _check_results(record)
    images, threads = record["images"]["test"], record["environment"]["threads"]
    if type(images) is not int or type(threads) is not int:
        raise ValueError("its number of test images or of threads is no whole number")
    for name, curve in record["curves"].items():
        if not isinstance(curve, list) or not all(isinstance(point, list) and len(point) == 2 for point in curve):
            raise ValueError(f"its curve {name} is no list of epochs and percents")
        if not all(_is_number(epoch) and (percent is None or _is_number(percent)) for epoch, percent in curve):
            raise ValueError(f"its curve {name} holds something that is no number")
    config = record["config"]
    config["trainer"]["threads"], config["epochs"], config["dataset"]["name"], config["method"]["target"]
    if not all(isinstance(version, dict) for version in versions_of(record)):
        raise ValueError("its code versions are none")
    for key in ("session_seconds", "train_seconds"):
        if record.get(key) is not None and not _is_number(record[key]):
            raise ValueError(f"its {key} is no number")
    return record


def _check_results(record: Record) -> None:
    protocols, results = record["protocols"], record["results"]
    if record["evaluated"] not in results:
        raise ValueError(f"it has no results of {record['evaluated']}, the network evaluated")
    for network, scores in results.items():
        if not isinstance(scores, dict):
            raise ValueError(f"its results of {network} are no percents by protocol")
        for protocol, value in scores.items():
            if value is not None and not (_is_number(value) and 0 <= value <= 100):
                raise ValueError(f"its {protocol} is {value!r}")
    wanted = {*record["config"]["evaluation"]["protocols"], *(name for scores in results.values() for name in scores)}
    if not wanted <= protocols.keys() or not all(type(version) is int for version in protocols.values()):
        raise ValueError("its protocols are not those of its configuration, with their versions")


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the record as JSON; numbers that are not finite become null, for JSON has none."""
    write_text(path, json.dumps(_finite(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
