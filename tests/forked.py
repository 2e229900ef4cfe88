"""Processes that have PyTorch already, forked from a server as the runs of a sweep are: importing it takes longer."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from torch.multiprocessing.spawn import start_processes

from ssl_bench.__main__ import main
from ssl_bench.training.server import server


def in_ranks(function: Callable[..., None], *given: object, world: int) -> None:
    """``function(rank, *given)`` in ``world`` processes; raises what one of them raised."""
    server()
    start_processes(function, given, world, start_method="forkserver")  # type: ignore[no-untyped-call]


class Forked:
    """``python -m ssl_bench`` in ``folder``, which is signalled and waited for as a ``subprocess.Popen``.

    Its output goes into ``output.txt`` there.
    """

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.output = folder / "output.txt"
        self.output.write_bytes(b"")
        self._process = server().Process(target=_program, args=(folder, overrides, dict(os.environ)))  # type: ignore[attr-defined]
        self._process.start()

    def poll(self) -> int | None:
        status: int | None = self._process.exitcode
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self._process.is_alive():
            os.kill(self._process.pid, number)

    def communicate(self, timeout: float) -> tuple[str, None]:
        self._process.join(timeout)
        if self._process.is_alive():
            self._process.kill()
            raise TimeoutError(f"still running after {timeout} s")
        return self.output.read_text(encoding="utf-8"), None

    @property
    def returncode(self) -> int | None:
        return self.poll()


def _program(folder: Path, overrides: tuple[str, ...], environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ |= {**environment, "COLUMNS": "200"}  # of the test, which the server has not
    file = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2(file, number)
    sys.exit(main(list(overrides)))
