"""Fetch what is missing, resuming where an earlier try was interrupted.

A file grows under the name ``<file>.part`` and is moved to its place once it is whole and its checksum is right. Beside
it, ``<file>.part.tag`` keeps what the server distinguishes versions of the file by (RFC 9110, section 13.1.5): bytes of
two versions are never joined.
"""

import hashlib
import os
import re
import signal
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ssl_bench.errors import SIGNALLED, UserError

ANSWER_SECONDS = 5.0  # how long the server may take to answer at all
STALL_SECONDS = 30.0  # how long a running download may stand still
STEP = 1 << 20  # bytes read at a time
HEADERS = {"User-Agent": "ssl_bench"}
FAILURES = (OSError, HTTPException, ValueError)  # of a connection, of HTTP, of addresses and encodings
VERSION = re.compile(r'"[\x21\x23-\x7e]*"|[\x20\x23-\x7e]+')  # a strong tag, or a date: what may be sent back
SHOWN = 200  # letters of a server's message


class Stopped(UserError):  # noqa: N818 (nothing is wrong)
    """SIGTERM came; what had arrived is kept."""

    status = SIGNALLED + signal.SIGTERM


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
        try:
            if path.exists():
                continue
            with _sigterm_raises():
                _wait_for_answer(url + file.name)
                place.mkdir(parents=True, exist_ok=True)
                with FileLock(path.with_name(f".{path.name}.lock")):
                    if not path.exists():
                        _fetch(url + file.name, path, file.md5)
        except FAILURES as error:
            raise UserError(f"{missing} (it failed: {_brief(error)}{_kept(path)}).") from error
        except Stopped:
            raise Stopped(f"stopped by SIGTERM while {path.name} was downloaded{_kept(path)}.") from None


def _kept(path: Path) -> str:
    size = _size(_part(path)[0])
    return f"; {size:,} bytes of {path.name} are kept, and the same command resumes there" if size else ""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise Stopped within, unless something else waits for it."""
    alone = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def stop(*_: object) -> None:
        raise Stopped

    if alone:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if alone:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fetch(url: str, path: Path, md5: str) -> None:
    """Load until the file is whole: a connection that breaks off is taken up again as long as each brings more."""
    part, tag = _part(path)
    reached = _size(part)
    while True:
        try:
            _load(url, part, tag)
            break
        except FAILURES:
            if _size(part) <= reached:
                raise
            reached = _size(part)
    found = md5_of(part)
    if found != md5:
        part.unlink()
        tag.unlink(missing_ok=True)
        raise OSError(f"expected {url} to have the MD5 checksum {md5}, found {found}, and removed what had arrived")
    os.replace(part, path)
    tag.unlink(missing_ok=True)


def _load(url: str, part: Path, tag: Path) -> None:
    """Ask once for what ``part`` has not yet; raises one of FAILURES where it does not come to an end."""
    known = tag.read_text(encoding="latin-1") if tag.exists() else ""
    start = _size(part) if VERSION.fullmatch(known) else 0
    headers = {"Range": f"bytes={start}-", "If-Range": known} if start else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=HEADERS | headers), timeout=STALL_SECONDS)
    except HTTPError as error:
        error.close()
        if start and error.code == 416:  # nothing is left to be loaded
            return
        raise
    with response:
        version = _version(response)
        whole = response.status == 200
        if not whole and not (
            response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            and version in ("", headers.get("If-Range"))  # some servers need not be asked twice, others do not listen
        ):
            if not start:
                raise OSError(f"the server answers with status {response.status} in place of the file")
            tag.unlink(missing_ok=True)
            _load(url, part, tag)  # all of it
            return
        length = response.length  # of what is to come; None where it is not stated, or is no number
        with open(part, "wb" if whole else "ab") as file:
            if whole:  # the tag is that of the bytes, whenever a power cut comes
                start = 0
                tag.unlink(missing_ok=True)
                if version:
                    tag.write_text(version, encoding="latin-1")
            expected = start + length if length is not None else None
            with _progress() as progress:
                bar = progress.add_task(part.stem, total=expected, completed=start)
                while content := response.read1(STEP):
                    file.write(content)
                    progress.advance(bar, len(content))
            file.flush()
            os.fsync(file.fileno())
    if expected is not None and _size(part) < expected:
        raise ConnectionAbortedError(f"the connection ended after {_size(part):,} of {expected:,} bytes")


def _version(response: HTTPResponse) -> str:
    """What a request may name so that it gets more of the same bytes only; "" if the server gives nothing of use."""
    strong = response.headers.get("ETag", "")
    version = strong if strong.startswith('"') else response.headers.get("Last-Modified", "")
    return version if VERSION.fullmatch(version) else ""


def _progress() -> Progress:
    """Bytes on stderr, if somebody is looking."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _part(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.tag")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def md5_of(path: Path) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while content := file.read(STEP):
            md5.update(content)
    return md5.hexdigest()


def _wait_for_answer(url: str) -> None:
    """Return when the server answers; raise OSError if it does not in time.

    A thread, because a name look-up obeys no time limit.
    """
    outcome: list[Exception | None] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD", headers=HEADERS)
        try:
            urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()
            outcome.append(None)
        except FAILURES as error:
            if isinstance(error, HTTPError):
                error.close()  # a refusal is an open answer
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    error = outcome[0] if outcome else TimeoutError("no answer from the server")
    if error is not None:
        raise error


def _brief(error: BaseException) -> str:
    """An error in one line: urllib wraps the reason, and a server may have worded it."""
    reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
    line = " ".join(str(reason).split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:SHOWN]
