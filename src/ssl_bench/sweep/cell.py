"""One run in a process of its own: what the process does, and what it sends at its end."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, NamedTuple

from ssl_bench.config.schema import Config
from ssl_bench.errors import NO_ROOM, SIGNALLED, TRY_AGAIN, UserError, is_full
from ssl_bench.files import reason
from ssl_bench.results.run_folder import Busy, RunFolder
from ssl_bench.training import launch


class Outcome(NamedTuple):
    """How a run ended: ``done``, ``failed``, ``interrupted`` (it can resume) or ``elsewhere`` (another has it)."""

    state: str
    sentence: str = ""
    card_lost: bool = False  # or ranks lost each other, for which a card may be the reason
    no_room: bool = False  # the disk is full


Line = connection.Connection  # what the process sends to the parent; it breaks when the process ends


def train(line: Line, config: Config, path: Path, cards: Sequence[str] = ()) -> None:
    """Be the process of a run; its output goes to the run's ``log.txt``.

    cards: the GPUs it may use, as CUDA_VISIBLE_DEVICES names them; without any, those that it inherits.
    """
    gc.freeze()  # of what the server has imported, nothing is garbage
    if cards:  # before anything asks CUDA
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(cards)
    _stop_with_the_parent(signal.SIGTERM)  # so that the run is saved
    if hasattr(os, "setsid"):
        os.setsid()  # so that Ctrl-C reaches it once, from the sweep
    folder = RunFolder(path)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        _write_to(folder.log)
        if cards:
            print(f"CUDA_VISIBLE_DEVICES={','.join(cards)}")
    except OSError as error:
        full = is_full(error)
        sentence = f"{folder.log} cannot be written ({reason(error)}): make room or choose another runs_dir."
        line.send(Outcome("interrupted" if full else "failed", sentence, no_room=full))
        return
    with suppress(BrokenPipeError):  # the sweep may be gone
        line.send(_outcome(config, folder))


def _outcome(config: Config, folder: RunFolder) -> Outcome:
    story = None
    try:
        folder.failure.unlink(missing_ok=True)  # what comes of this attempt counts
        record = launch.train(config)
        from ssl_bench.report.tables import print_table, run_table

        print_table(run_table(record))
        if record.fingerprint == folder.fingerprint:
            return Outcome("done")
        compiled = (
            "its machine cannot compile: leave trainer.compile out" if config.trainer.compile else "its data differ"
        )
        sentence = f"it became {record.fingerprint}, another run, for {compiled}"
    except KeyboardInterrupt:
        return Outcome("interrupted")
    except UserError as error:
        sentence = " ".join(str(error).split())
        with suppress(OSError):  # the log may be on a full disk
            print("ssl_bench:", sentence, file=sys.stderr)
        # A rank's error has lost its class on the way here.
        if isinstance(error, Busy) or folder.busy():
            return Outcome("elsewhere")
        card_lost, no_room = error.status == TRY_AGAIN, error.status == NO_ROOM
        if error.status > SIGNALLED or card_lost or no_room:
            return Outcome("interrupted", sentence, card_lost, no_room)
    except Exception as error:
        with suppress(OSError):
            traceback.print_exc()
        if is_full(error):  # what matters is refused in a sentence: this was the log, a logger or a temporary file
            return Outcome(
                "interrupted",
                f"no space left for a log or a temporary file; {folder.path} is as it was saved last.",
                no_room=True,
            )
        story = traceback.format_exc()
        sentence = " ".join(f"{type(error).__name__}: {error}".split())
    with suppress(UserError):  # where nothing can be written, the sweep alone knows why
        folder.fail(sentence, story, config.as_dict())
    return Outcome("failed", sentence)


def _write_to(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(file, number)
        stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)  # type: ignore[union-attr]
    os.close(file)


def answer(line: Line, function: Callable[..., Any], given: Sequence[Any], folder: Path | None) -> None:
    """Be a process that computes ``function(*given)`` and sends it, or the UserError or traceback it ended with.

    folder: where output goes, into ``log.txt``; None leaves it on the screen.
    """
    _stop_with_the_parent(signal.SIGKILL)  # there is nothing to save
    if folder is not None:
        _write_to(folder / "log.txt")
    try:
        line.send(("answer", function(*given)))
    except UserError as error:
        line.send(("mistake", str(error)))
    except KeyboardInterrupt:
        line.send(("mistake", "interrupted."))
    except Exception:
        line.send(("crash", traceback.format_exc()))


def _stop_with_the_parent(number: signal.Signals) -> None:
    """A parent that was killed can pass no signal on: do to oneself what it would have done."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), number)

    threading.Thread(target=wait, daemon=True).start()
