"""What all entry points have in common: help, a mistake in one sentence, Ctrl-C, an output that nobody reads on."""

from __future__ import annotations

import errno
import gc
import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from ssl_bench.errors import NO_ROOM, SIGNALLED, UserError, is_full

HANGUP = getattr(signal, "SIGHUP", None)  # which not every system has
SAME_REQUEST = 2.0  # seconds in which SIGTERM may come twice for one request to stop


def run_command(
    arguments: Sequence[str] | None,
    help_text: Callable[[], str],
    work: Callable[[list[str]], int | None],
    *,
    interrupted: str = "interrupted.",
) -> int:
    """Print the help where it is asked for, else do the ``work`` with the arguments; returns the exit status.

    arguments: None: those of the command line. work, interrupted: as of `guarded`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "-h" in given or "--help" in given:
        return guarded(lambda: print(help_text()), interrupted=interrupted)

    def checked() -> int | None:
        for word in given:
            if re.match("--?[a-z]", word):
                raise UserError(f"{word} is unknown: options are set as key=value, as in scale=cpu; --help lists them.")
        return work(given)

    return guarded(checked, interrupted=interrupted)


def guarded(work: Callable[[], int | None], *, interrupted: str) -> int:
    """Do the ``work``; returns its exit status, None for 0, or that of the UserError or signal which ended it.

    interrupted: what is shown after Ctrl-C.
    """
    # Pictures are drawn without a window, whatever a notebook hands down, which another environment may not have.
    os.environ["MPLBACKEND"] = "Agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    watch_output()
    try:
        try:
            status = work() or 0
        except UserError as error:
            status = print_error(error)
        except KeyboardInterrupt:
            _print(interrupted)
            status = SIGNALLED + signal.SIGINT
        if sys.stdout is not None:  # a daemon's is closed
            sys.stdout.flush()
        return status
    except UserError as error:  # of standard output
        return print_error(error)


class Unread(UserError):  # noqa: N818 (nothing is wrong)
    """Nobody reads the output any more, as after `| head`: there is nothing to print."""

    status = SIGNALLED + signal.SIGPIPE


def watch_output() -> None:
    """Let standard output raise a UserError where the system takes no more of it.

    A terminal that was closed is no reason to stop: what would be shown there vanishes.
    """
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper) or "write" in vars(stream):
        return

    def watched(act: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*given: Any) -> Any:
            try:
                return act(*given)
            except OSError as error:
                _drop(stream)
                if isinstance(error, BrokenPipeError):
                    raise Unread from None
                if error.errno != errno.EIO:
                    sentence = f"standard output cannot be written ({error.strerror}); what was saved is whole."
                    raise UserError(sentence, NO_ROOM if is_full(error) else None) from None

        return acted

    for name in ("write", "flush"):
        setattr(stream, name, watched(getattr(stream, name)))


def _drop(stream: TextIO) -> None:
    """Let what is left in ``stream``, and what still comes, vanish."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def importing() -> Iterator[None]:
    """Import PyTorch and Lightning a fifth faster: without looking for garbage, of which importing makes none."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def take_over(handle: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Let ``handle`` be called for Ctrl-C, SIGTERM and SIGHUP; returns what was called before, by signal.

    SIGHUP stays ignored where it is, as under nohup. Only a request of its own counts as a second signal: not SIGHUP,
    which a terminal that goes may send more than once, nor a SIGTERM soon after the first signal, where whoever stops
    all processes of a job asks this one, and its parent passes the same on.
    """
    received: list[float] = []  # when

    def receive(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if received and (number == HANGUP or (number == signal.SIGTERM and now - received[0] < SAME_REQUEST)):
            return
        received.append(now)
        handle(number, frame)

    names = [signal.SIGINT, signal.SIGTERM]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        names.append(HANGUP)
    return {name: signal.signal(name, receive) for name in names}


def print_error(error: UserError) -> int:
    """Print the error's one sentence; returns its exit status."""
    # Of several processes on a machine, one prints; LOCAL_RANK alone may be left over in a shell.
    started = {"RANK", "WORLD_SIZE"} <= os.environ.keys()
    if not started or os.environ.get("LOCAL_RANK", "0") == "0":
        _print(str(error))
    return error.status


def _print(sentence: str) -> None:
    try:
        if sentence:
            print("ssl_bench:", re.sub(r"\s*\n\s*", " ", sentence.strip()), file=sys.stderr)
    except OSError:  # a terminal that was closed, or a full disk: nobody is left to read it
        _drop(sys.stderr)
