"""The page while runs finish: served to browsers of this machine, and written anew where records change."""

from __future__ import annotations

import glob
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ssl_bench.errors import UserError
from ssl_bench.page.contents import Contents, Request, contents
from ssl_bench.page.findings import README, TABLE
from ssl_bench.page.former import RESULTS
from ssl_bench.page.write import write

SECONDS = 2.0  # between two looks at the records
SHARE = 10  # of the time that writing takes; as much is left for the runs

Stamp = dict[str, tuple[int, int]]  # time and size by path


class Handler(SimpleHTTPRequestHandler):
    """Files of the page, and nothing for pages of other hosts that call this one by a name of their own."""

    version = ""  # of what is served; the page loads itself again when it changes

    def __init__(self, *arguments: Any, host: str, **others: Any) -> None:
        self.names = ("localhost", host.lower())
        super().__init__(*arguments, **others)  # answers

    def do_GET(self) -> None:
        name = _host(self.headers.get("Host", ""))
        if name not in self.names and not _is_address(name):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path == "/version":
            self.send_response(HTTPStatus.OK)
            self.end_headers()
            self.wfile.write(self.version.encode())
        else:
            super().do_GET()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """Requests are no news."""


def _host(header: str) -> str:
    """The name or address in ``header``, in lower case, without the port; empty where there is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def serve(asked: Request, found: Contents, stamp: Stamp, *, wait: Callable[[float], object] = time.sleep) -> None:
    """Write the page and serve it until Ctrl-C; UserError where the port is not free.

    found: its contents so far, read after ``stamp`` was taken.
    """
    out, host, port = Path(asked.settings["out"]), asked.settings["host"], asked.settings["port"]
    try:
        server = ThreadingHTTPServer((host, port), partial(Handler, directory=str(out), host=host))
    except OSError as error:
        remedy = "choose another, or port=0 for any free one"
        raise UserError(f"host={host} port={port} cannot be served at ({error.strerror}): {remedy}.") from None
    write(out, found, watched=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    print(f"http://{host}:{server.server_address[1]} shows {out} and what changes; Ctrl-C ends it.", flush=True)
    spent = 0.0
    try:
        while True:
            wait(max(SECONDS, SHARE * spent))
            if (now := stamp_of(asked)) != stamp:
                started = time.perf_counter()
                try:
                    if write(out, contents(asked), watched=True):
                        Handler.version = str(time.time_ns())
                except UserError as error:  # such as a file that is half written
                    print(f"{out} stays as it was: {error}", file=sys.stderr, flush=True)
                stamp, spent = now, time.perf_counter() - started
    except KeyboardInterrupt:
        pass
    finally:
        server.shutdown()
        server.server_close()


def stamp_of(asked: Request) -> Stamp:
    """When what the page is made of was last changed."""
    settings = asked.settings
    patterns = [f"{glob.escape(settings['runs_dir'])}/*/{name}.json" for name in ("record", "failed")]
    if not asked.alone:
        folder = glob.escape(settings["experiments"])
        patterns += [f"{folder}/{README}", *(f"{folder}/*/{name}" for name in (README, TABLE, RESULTS))]
        patterns += [f"{settings['records']}/*.json"] if settings["records"] else []
    found: Stamp = {}
    for pattern in patterns:
        for path in glob.iglob(pattern, recursive=True):
            try:
                status = Path(path).stat()
            except OSError:  # it was moved away meanwhile
                continue
            found[path] = status.st_mtime_ns, status.st_size
    return found
