"""Fetch what is missing, resuming where an earlier try was interrupted.

A file grows under the name ``<file>.part`` and is moved to its place once it is whole and its checksum is right, which
also refuses bytes of two versions that a server has had.
"""

import hashlib
import os
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ssl_bench.errors import UserError

ANSWER_SECONDS = 5.0  # how long the server may take to answer at all
STALL_SECONDS = 30.0  # how long a running download may stand still
STEP = 1 << 20  # bytes read at a time
HEADERS = {"User-Agent": "ssl_bench"}
FAILURES = (OSError, HTTPException, ValueError)  # of a connection, of HTTP, of addresses and encodings
SHOWN = 200  # letters of a server's message


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file of a dataset as its authors publish it."""

    name: str
    size: int  # bytes
    md5: str


def download(files: Iterable[Published], url: str, place: Path, *, missing: str) -> None:
    """Put files from the address ``url`` into the folder ``place``; those that are there are left alone.

    What arrived before an interruption is kept, and the next call resumes there. Of two processes that fetch the
    same file, one waits for the other. ``missing`` is a sentence without its full stop on how else to get the data.

    Raises:
        UserError: ``missing``, with what failed.
    """
    for file in files:
        path = place / file.name
        part = place / f"{file.name}.part"
        try:
            if path.exists():
                continue
            _require_answer(url + file.name)
            place.mkdir(parents=True, exist_ok=True)
            with FileLock(place / f".{file.name}.lock"):
                if not path.exists():
                    _fetch(url + file.name, part, file.md5)
                    os.replace(part, path)
        except FAILURES as error:
            if isinstance(error, HTTPError):
                error.close()  # it is an open answer
            kept = f"; {_size(part):,} bytes of {file.name} are kept, and the same command resumes there"
            raise UserError(f"{missing} (it failed: {_brief(error)}{kept if _size(part) else ''}).") from error


def _require_answer(url: str) -> None:
    """Raise one of FAILURES where the server does not answer soon, or has no such file."""
    urllib.request.urlopen(urllib.request.Request(url, method="HEAD", headers=HEADERS), timeout=ANSWER_SECONDS).close()


def _fetch(url: str, part: Path, md5: str) -> None:
    """Load until the file is whole: a connection that breaks off is taken up again as long as each brings more."""
    earlier = reached = _size(part)
    while True:
        try:
            _load(url, part)
        except FAILURES:
            if _size(part) <= reached:
                raise
            reached = _size(part)
            continue
        found = md5_of(part)
        if found == md5:
            return
        part.unlink()
        if not earlier:
            raise OSError(f"expected {url} to have the MD5 checksum {md5}, found {found}, and removed what had arrived")
        earlier = reached = 0  # what had come earlier may be of another version: once more, all of it


def _load(url: str, part: Path) -> None:
    """Ask once for what ``part`` has not yet; raises one of FAILURES where it does not come to an end."""
    start = _size(part)
    request = urllib.request.Request(url, headers=HEADERS | ({"Range": f"bytes={start}-"} if start else {}))
    try:
        response = urllib.request.urlopen(request, timeout=STALL_SECONDS)
    except HTTPError as error:
        if not start or error.code != 416:
            raise
        error.close()  # nothing is left to be loaded
        return
    with response:
        whole = response.status == 200
        if not whole and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise OSError(f"the server answers with status {response.status} in place of the file")
        start = 0 if whole else start
        # The length is of what is to come; None where it is not stated, or is no number.
        expected = None if response.length is None else start + response.length
        with open(part, "wb" if whole else "ab") as file, _progress() as progress:
            bar = progress.add_task(part.stem, total=expected, completed=start)
            while content := response.read1(STEP):
                file.write(content)
                progress.advance(bar, len(content))
            file.flush()
            os.fsync(file.fileno())
    if expected is not None and _size(part) < expected:
        raise ConnectionAbortedError(f"the connection ended after {_size(part):,} of {expected:,} bytes")


def _progress() -> Progress:
    """Bytes on stderr, if somebody is looking."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def md5_of(path: Path) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while content := file.read(STEP):
            md5.update(content)
    return md5.hexdigest()


def _brief(error: BaseException) -> str:
    """An error in one line: urllib wraps the reason, and a server may have worded it."""
    reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
    line = " ".join(str(reason).split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:SHOWN]
