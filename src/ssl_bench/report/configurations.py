"""The configurations of many cells, remembered between commands: composing takes a tenth of a second for each kind."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ssl_bench
from ssl_bench.config.experiments import Cell
from ssl_bench.config.schema import Config
from ssl_bench.config.sources import ROOTS
from ssl_bench.errors import UserError
from ssl_bench.files import write_text

KINDS = 500  # are remembered, those composed last
SOURCES = (
    "config/compose.py",
    "config/options.py",
    "config/parse.py",
    "config/sources.py",
    "config/experiments.py",
    "config/schema.py",
    "report/configurations.py",
    "schedules.py",
)  # what composing depends on


def remembered() -> Path:
    """The file that configurations are kept in, in the user's folder for what can be made anew."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder) / "ssl_bench" / "configurations.json"


def configurations(
    cells: Sequence[Cell], compose: Callable[[Sequence[Cell]], list[Config]], file: Path
) -> list[Config]:
    """What ``compose`` gives for every cell; it is asked for kinds only that ``file`` has not.

    ``file`` serves one state of conf/ and of the code that composes, and starts anew with another. It may be missing,
    damaged or unwritable. What a sweep has composed, its table need not.
    """
    state = _state()
    known = _read(file, state)
    new = {_kind(cell): cell for cell in cells if _kind(cell) not in known}
    if new:
        known |= dict(zip(new, compose(list(new.values())), strict=True))
        kept = {kind: config.as_dict() for kind, config in list(known.items())[-KINDS:]}
        with suppress(OSError, UserError):  # it only saves time
            write_text(file, json.dumps({"state": state, "configurations": kept}))
    found = []
    for cell in cells:
        found.append(replace(known[_kind(cell)], seed=cell.seed))
    return found


def _kind(cell: Cell) -> str:
    """What a cell is apart from its seed."""
    return "\n".join(word for word in cell.words if word != f"seed={cell.seed}")


def _read(file: Path, state: str) -> dict[str, Config]:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["state"] != state:
            return {}
        return {kind: Config.from_dict(tree) for kind, tree in kept["configurations"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _state() -> str:
    """A digest of everything that decides what words mean."""
    digest = hashlib.sha256()
    folder = Path(ssl_bench.__file__).parent
    files = [file for root in ROOTS for entry in sorted(root.iterdir(), key=str) for file in _files(entry)]
    for file in [*files, *(folder / name for name in SOURCES)]:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _files(entry: Any) -> list[Any]:
    if not entry.is_dir():
        return [entry]
    return sorted((file for file in entry.iterdir() if file.name.endswith(".yaml")), key=lambda file: str(file.name))
