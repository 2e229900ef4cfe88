"""Runs in processes of their own on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.sweep import cell
from ssl_bench.sweep.cell import Outcome
from ssl_bench.training.server import server

T = TypeVar("T")


def _begun(context: BaseContext, target: Callable[..., None], *given: Any) -> tuple[Connection, BaseProcess]:
    """A process at work on ``target``, and the end of its line."""
    line, theirs = context.Pipe(duplex=False)
    process: BaseProcess = context.Process(target=target, args=(theirs, *given))  # type: ignore[attr-defined]
    process.start()
    theirs.close()
    return line, process


class Job:
    """A run in a process that has been started."""

    def __init__(self, context: BaseContext, config: Config, path: Path, cards: Sequence[str] = ()) -> None:
        self.outcome: Outcome | None = None
        self.line, self.process = _begun(context, cell.train, config, path, cards)

    def poll(self, seconds: float = 0.0) -> Outcome | None:
        """How the run ended, or None if it has not within ``seconds``.

        By the pipe, not by the exit status: that is the server's to know, and the server may have been killed.
        """
        if not self.line.poll(seconds):
            return None
        try:
            self.outcome = self.line.recv()
        except (EOFError, OSError):
            self.process.join(1.0)
            status = self.process.exitcode or 0  # none where the server was killed, too
            by = f" by {signal.strsignal(-status) or -status}" if status < 0 else ""
            self.outcome = Outcome("interrupted", f"its process was ended from outside{by}")
        self.line.close()
        self.process.join(0)
        return self.outcome

    def stop(self) -> None:
        """Ask the run to save its state and end."""
        self._send(signal.SIGTERM)  # not SIGINT, which the server ignores and so does what it has just forked

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)


def ask(function: Callable[..., T], *given: Any, folder: Path | None = None) -> T:
    """``function(*given)`` computed in a process of its own, so that its memory goes with it.

    Raises:
        UserError: as there; or the process was ended from outside, as where memory is short.
        RuntimeError: it crashed; with the traceback.
    """
    line, process = _begun(server(), cell.answer, function, given, folder)
    try:
        kind, answer = line.recv()
    except EOFError:
        raise UserError(
            "the process at work was ended from outside, as where memory is short: run the same command again."
        ) from None
    process.join()
    if kind == "mistake":
        raise UserError(answer)
    if kind == "crash":
        raise RuntimeError(answer)
    result: T = answer
    return result
