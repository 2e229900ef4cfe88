"""The page's folder: one file to open, what it loads from beside it, and nothing from anywhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

import ssl_bench
from ssl_bench.errors import UserError
from ssl_bench.page.contents import Contents
from ssl_bench.page.runs import FIELDS
from ssl_bench.page.script import script
from ssl_bench.report.publish import save

INDEX, DATA = "index.html", "data"
OURS = '<meta name="generator" content="ssl_bench page">'
# What a page puts below data/, index.js aside; of these it deletes what an earlier page showed.
OWN = re.compile(r"(e\d+|r[0-9a-f]{1,2}|p[0-9a-f]{12}|s[0-9a-f]{12}-\d+(-\d+)?)\.js|[dv]\d+\.png")
LISTED = ("name", "title", "kind", "methods", "problem")  # what is known of an experiment before it is loaded
MANY = 2000  # runs: beyond them details are shared out to more files
Plain = dict[str, Any]


def write(out: Path, contents: Contents, *, watched: bool = False) -> int:
    """Make or update the page in ``out``; returns how many files changed.

    watched: the page asks its server whether it has changed.

    Raises:
        UserError: the folder cannot be written, or has files that are not of a page.
    """
    require_ours(out)
    files = dict(_files(contents, watched))
    if not (out / INDEX).exists():  # what is interrupted below may be begun again
        save(out / INDEX, lambda path: _put(path, OURS.encode()))
    changed = 0
    for name, content in files.items():
        path = out / name
        if not path.exists() or path.read_bytes() != content:
            save(path, lambda path, content=content: _put(path, content))  # type: ignore[misc]
            changed += 1
    for path in (out / DATA).iterdir():
        if OWN.fullmatch(path.name) and f"{DATA}/{path.name}" not in files:
            path.unlink()
            changed += 1
    return changed


def require_ours(out: Path) -> None:
    """UserError where ``out`` is a file, or a folder with files but without a page that this command has made."""
    there = out / INDEX
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file: choose a folder.")
    if not there.is_file():
        if out.exists() and any(out.iterdir()):
            raise UserError(f"out={out} has files that are not of a page: choose a new or an empty folder.")
    elif OURS not in there.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"out={out} has another {INDEX}, which would be lost: choose another folder.")


def _put(path: Path, content: bytes) -> None:
    """Whole or not at all, for somebody may be reading it."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _files(contents: Contents, watched: bool) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file; the data that index.html names first is complete before it."""
    static = resources.files("ssl_bench.page") / "static"
    for file in static.iterdir():
        yield file.name, file.read_bytes()
    yield from _data(contents, watched)
    page = Environment(loader=PackageLoader("ssl_bench.page"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = page.get_template(INDEX).render(
        ours=OURS, version=ssl_bench.__version__, findings=contents.findings, experiments=contents.experiments
    )
    yield INDEX, text.encode()


def _data(contents: Contents, watched: bool) -> Iterator[tuple[str, bytes]]:
    listed = []
    for number, experiment in enumerate(contents.experiments):
        listed.append({key: experiment[key] for key in LISTED if key in experiment})
        yield _script(f"e{number}", experiment)
    digits = 1 if len(contents.runs) <= MANY else 2
    shares: dict[str, Plain] = {}
    for name, whole in contents.whole.items():
        shares.setdefault(name[:digits], {})[name] = whole
    for share, runs in shares.items():
        yield _script(f"r{share}", runs)
    index: Plain = {
        "experiments": listed,
        "fields": [*FIELDS, *contents.protocols],
        "protocols": contents.protocols,
        "runs": contents.runs,
        "digits": digits,
        "skipped": contents.skipped,
        "watched": watched,
    }
    if contents.images is not None:
        seen = contents.images
        index["images"] = {"runs": seen.runs, "datasets": seen.datasets, "left_out": seen.left_out}
        for name, content in seen.files.items():
            yield f"{DATA}/{name}", content
    yield _script("index", index)


def _script(name: str, value: Any) -> tuple[str, bytes]:
    return f"{DATA}/{name}.js", script(name, value)
