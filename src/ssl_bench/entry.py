"""What all entry points have in common: help, a mistake in one sentence, Ctrl-C, an output that nobody reads on."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence

from ssl_bench.errors import UserError

SIGNALLED = 128  # a shell's exit status for a signal is this and its number


def answer(
    arguments: Sequence[str] | None,
    help_text: Callable[[], str],
    work: Callable[[list[str]], int | None],
    *,
    interrupted: str = "interrupted.",
) -> int:
    """Print the help where it is asked for, else do the ``work`` with the words; returns the exit status.

    arguments: the words; None: those of the command line. work, interrupted: as of `guarded`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "-h" in words or "--help" in words:
        return guarded(lambda: print(help_text()), interrupted=interrupted)
    return guarded(lambda: work(words), interrupted=interrupted)


def guarded(work: Callable[[], int | None], *, interrupted: str) -> int:
    """Do the ``work``; returns its exit status, None for 0, or that of the UserError or signal which ended it.

    interrupted: what is said after Ctrl-C.
    """
    # Pictures are drawn without a window, whatever a notebook hands down, which another environment may not have.
    os.environ["MPLBACKEND"] = "Agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        try:
            status = work() or 0
        except UserError as error:
            status = tell(error)
        except KeyboardInterrupt:
            print("ssl_bench:", interrupted, file=sys.stderr)
            status = SIGNALLED + signal.SIGINT
        if sys.stdout is not None:  # a daemon's is closed
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        if not _reader_gone():
            raise
        return SIGNALLED + signal.SIGPIPE


def _reader_gone() -> bool:
    """Whether nobody reads the output any more, as `| head` when it has seen enough; what is left of it is dropped."""
    output = sys.stdout.fileno()
    look = select.poll()
    look.register(output, select.POLLERR)
    if not look.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def tell(error: UserError) -> int:
    """Print the error's one sentence; returns its exit status."""
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes on a machine, one speaks
        print("ssl_bench:", *str(error).split(), file=sys.stderr)
    return error.status
