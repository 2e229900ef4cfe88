"""The folder of one run: its files, its lock, and whether it is finished."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ssl_bench.errors import UserError


class RunFolder:
    """``runs/<fingerprint>/``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def fingerprint(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def record(self) -> Path:
        return self.path / "record.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.npz"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def encoder(self) -> Path:
        return self.path / "encoder.safetensors"

    @property
    def picture(self) -> Path:
        return self.path / "tsne.png"

    def finished(self) -> dict[str, Any] | None:
        """The record of a finished run, or None; UserError if it is damaged."""
        if not self.record.exists():
            return None
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            if record["fingerprint"] != self.fingerprint:
                raise ValueError(f"it belongs to run {record['fingerprint']}")
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"{self.record} is not the record of this run ({error}). Move {self.path} away to start over."
            ) from None
        return dict(record)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out; the lock falls with the process that holds it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise UserError(f"another process is at work in {self.path}; wait for it, or stop it first.") from None
        except OSError as error:
            raise UserError(
                f"runs_dir={self.path.parent} cannot be written ({error.strerror}): choose another."
            ) from None
        try:
            yield
        finally:
            lock.release()
