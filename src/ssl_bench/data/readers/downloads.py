"""Fetch what is missing: beside its place and moved when complete, so that no half-written file is ever found there."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from ssl_bench.errors import UserError

ANSWER_SECONDS = 5.0  # how long the server may take to answer at all
STALL_SECONDS = 30.0  # how long a running download may stand still


def download(url: str, place: Path, fetch: Callable[[str], Path], *, missing: str) -> None:
    """Let ``fetch`` load files into a temporary folder, and move all files of the folder it returns to ``place``.

    Neither an interrupted download nor another process at the same work leaves a half-written file. ``url`` is asked
    first whether it answers; ``missing`` is a sentence without its full stop on how else to get the data.

    Raises:
        UserError: ``missing``, with what failed.
    """
    patience = socket.getdefaulttimeout()
    try:
        _wait_for_answer(url)
        socket.setdefaulttimeout(STALL_SECONDS)  # torchvision sets none and would wait for ever
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=place) as folder:
            for file in fetch(folder).iterdir():
                os.replace(file, place / file.name)
    except (OSError, RuntimeError, HTTPException, EOFError) as error:
        raise UserError(f"{missing} (it failed: {_brief(error)}).") from error
    finally:
        socket.setdefaulttimeout(patience)


def download_file(url: str, place: Path, *, md5: str, what: str) -> None:
    """Fetch one file into the folder ``place``; ``what`` names the dataset."""
    from torchvision.datasets.utils import download_url

    def fetch(folder: str) -> Path:
        download_url(url, folder, md5=md5)
        return Path(folder)

    name = url.rpartition("/")[2]
    missing = f"{what} is not there: put {name} into {place}, packed or unpacked, or connect to the internet so that "
    download(url, place, fetch, missing=f"{missing}it can be downloaded from {url}")


def _wait_for_answer(url: str) -> None:
    """Return when the server answers; raise OSError if it does not in time.

    A thread, because a name look-up obeys no time limit.
    """
    outcome: list[OSError | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER_SECONDS).close()
            outcome.append(None)
        except OSError as error:
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
    """An error in one line: urllib wraps the reason, torchvision lists its attempts line by line."""
    reason = error.reason if isinstance(error, URLError) else error
    return str(reason).strip().rpartition("\n")[2] or type(error).__name__
