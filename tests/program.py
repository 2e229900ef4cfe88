"""The program as users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ssl_bench.sweep import local

Program = Callable[..., "subprocess.CompletedProcess[str]"]


def program_in(folder: Path) -> Program:
    """Run ``python -m ssl_bench`` (or another module) in ``folder`` and wait for it."""

    def run(*words: str, module: str = "ssl_bench", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=folder,
            env={**os.environ, "COLUMNS": "200", **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


class Forked:
    """``python -m ssl_bench`` in a process that has PyTorch already: forked from a server, as runs of a sweep are.

    It can be signalled and waited for as a ``subprocess.Popen``; its output goes into ``folder / "output.txt"``.
    """

    def __init__(self, folder: Path, *words: str) -> None:
        self.output = folder / "output.txt"
        self._process = local.server().Process(target=_program, args=(folder, words))  # type: ignore[attr-defined]
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


def _program(folder: Path, words: tuple[str, ...]) -> None:
    from ssl_bench.__main__ import main

    os.chdir(folder)
    os.environ["COLUMNS"] = "200"
    file = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2(file, number)
    sys.exit(main(list(words)))
