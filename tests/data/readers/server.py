"""A web server on this machine that can do what servers on the internet do wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """What is served, how, and what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = True  # knows Range
        self.breaks_after: int | None = None  # bytes of each answer, then the connection ends
        self.stalls_after: int | None = None  # bytes, then nothing comes for a while
        self.pace = 0.0  # seconds between pieces of 1,000 bytes
        self.asked: list[tuple[str, str | None, int]] = []  # of each GET: path, Range, status
        self.url = ""

    @property
    def ranges_asked(self) -> list[str | None]:
        return [wanted for _, wanted, _ in self.asked]

    @property
    def statuses(self) -> list[int]:
        return [status for _, _, status in self.asked]


@contextmanager
def served(**files: bytes) -> Iterator[Server]:
    """A server at work on files by name."""
    state = Server()
    state.files.update(files)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            found = self.path[1:] in state.files
            self.send_response(200 if found else 404)
            self.end_headers()

        def do_GET(self) -> None:
            content = state.files.get(self.path[1:])
            if content is None:
                state.asked.append((self.path, self.headers["Range"], 404))
                return self.send_error(404)
            start = int(self.headers["Range"][6:-1]) if self.headers["Range"] and state.ranges else 0
            status = 200 if not start else 416 if start >= len(content) else 206
            state.asked.append((self.path, self.headers["Range"], status))
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            body = b"" if status == 416 else content[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.close_connection = True
            body = body[: state.breaks_after]
            for first in range(0, len(body), 1000):
                if state.stalls_after is not None and first >= state.stalls_after:
                    return time.sleep(0.6)
                time.sleep(state.pace)
                try:
                    self.wfile.write(body[first : first + 1000])
                except OSError:  # the client was killed
                    return None
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()
