"""The folder of one run: its files, its lock, and whether it is finished."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ssl_bench.errors import NO_ROOM, UserError, is_full
from ssl_bench.files import reason, write_text
from ssl_bench.results.record import MISFITS, Record, misfit

WAIT = 0.5  # seconds for a lock


class Busy(UserError):  # noqa: N818 (nothing is wrong)
    """Another process is at work in the run's folder."""


class RunFolder:
    """``runs/<fingerprint>/``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fingerprint = path.name
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.record = path / "record.json"
        self.predictions = path / "predictions.npz"
        self.checkpoint = path / "checkpoints" / "last.ckpt"
        self.encoder = path / "encoder.safetensors"
        self.picture = path / "tsne.png"
        self.failure = path / "failed.json"  # why a sweep could not finish the run; gone once it is tried again
        self.log = path / "log.txt"  # what the run printed when a sweep ran it

    def finished(self) -> Record | None:
        """The record of a finished run, or None; UserError if it is damaged."""
        if not self.record.exists():
            return None
        try:
            return Record.read(self.record, self.fingerprint)
        except ValueError as error:
            remedy = (
                "Remove it, and the same command resumes from the checkpoint"
                if self.checkpoint.exists()
                else f"Move {self.path} away to start over"
            )
            raise UserError(f"{self.record} is not the record of this run ({error}). {remedy}.") from None

    def set_aside(self) -> Path:
        """Move what the run has left into ``earlier/<number>/``, so that it can start over; returns that folder.

        The record goes first and the checkpoints last: whatever ends this half way, the run is no longer finished, and
        what is left of it is not taken for a run that has not begun.
        """
        left = [self.record, self.config, self.metrics, self.predictions, self.encoder, self.picture]
        number = next(n for n in itertools.count(1) if not (self.path / "earlier" / str(n)).exists())
        target = self.path / "earlier" / str(number)
        target.mkdir(parents=True)
        for path in [*left, self.checkpoint.parent]:
            if path.exists():
                path.rename(target / path.name)
        return target

    def failed(self) -> str | None:
        """What ended the run's last attempt in a sweep, in one line; None if nothing did."""
        try:
            return str(json.loads(self.failure.read_text(encoding="utf-8"))["error"])
        except FileNotFoundError:
            return None
        except MISFITS as error:
            return f"{self.failure} cannot be read ({misfit(error)})"

    def fail(self, error: str, traceback: str | None, config: Mapping[str, Any]) -> None:
        """Write down what ended which run, unless another process has taken it up since."""
        content = {"error": error, "traceback": traceback, "config": config}
        with suppress(Busy), self.locked():
            write_text(self.failure, json.dumps(content, ensure_ascii=False, indent=1))

    def busy(self) -> bool:
        """Whether another process holds the lock; to find out takes it for an instant."""
        if not (self.path / ".lock").exists():
            return False
        try:
            with self.locked(wait=0):
                return False
        except Busy:
            return True

    @contextmanager
    def locked(self, *, wait: float = WAIT) -> Iterator[None]:
        """Keep every other process out; the lock falls with the process that holds it.

        wait: seconds, in which whoever asks whether the run is ``busy`` gives the lock back. Raises Busy after them.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=wait)
            lock.acquire()
        except Timeout:
            raise Busy(f"another process is at work in {self.path}; wait for it, or stop it first.") from None
        except OSError as error:
            raise UserError(
                f"runs_dir={self.path.parent} cannot be written ({reason(error)}): make room or choose another.",
                NO_ROOM if is_full(error) else None,
            ) from None
        try:
            yield
        finally:
            lock.release()
