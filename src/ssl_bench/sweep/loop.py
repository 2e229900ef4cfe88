"""Start what is left, as many at once as asked for, until all runs are done or have failed."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from ssl_bench.errors import UserError
from ssl_bench.sweep.cell import Outcome
from ssl_bench.sweep.grid import SweepRun
from ssl_bench.training import launch

POLL_SECONDS = 0.05  # between two polls of the processes
ELSEWHERE_SECONDS = 1.0  # between two checks of what other sweeps are at work on
DEATHS = 2  # a run that ends so often without being asked to, and ends no further epoch, is not started again


class Job(Protocol):
    """A run that has been started."""

    outcome: Outcome | None  # as of poll

    def poll(self) -> Outcome | None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Watcher(Protocol):
    """Whoever shows the sweep to a person."""

    def event(self, entry: SweepRun, what: str) -> None: ...
    def show(self, sentence: str) -> None: ...
    def refresh(self) -> None: ...


def run(
    entries: Sequence[SweepRun],
    start: Callable[[SweepRun], Job | None],
    *,
    slots: int,
    retry_failed: bool,
    watcher: Watcher,
) -> int:
    """Bring every entry to its end; returns the signal that asked to stop, 0 if none did.

    start: starts an entry's run; None where it has to wait, UserError where it cannot be started. slots: runs at once.

    Raises:
        UserError: a run could not be started while none was at work; while others are, it is tried again after them.
    """
    todo = deque(entry for entry in entries if entry.state in ("interrupted", "left"))
    if retry_failed:
        todo.extend(entry for entry in entries if entry.state == "failed" and not entry.damaged)
    running: dict[int, tuple[SweepRun, Job]] = {}
    checked_at, passed_on, full = time.monotonic(), 0, False
    room, told = slots, ""
    asked: list[Job] = []  # to stop
    with launch.listening() as received, _stopped_by_errors(running, asked, received, watcher):
        while True:
            for number in received[passed_on:]:
                passed_on += 1
                for _, job in running.values():
                    job.stop() if passed_on == 1 else job.kill()
                    asked.append(job)
                if running:  # last, since nobody may read it
                    watcher.show(_stopping(number, len(running), passed_on))
            for key, (entry, job) in list(running.items()):
                outcome = job.poll()
                if outcome is not None:
                    del running[key]
                    room = slots
                    if _end(entry, outcome, stopping=bool(received), watcher=watcher):
                        todo.appendleft(entry)
                    if outcome.no_room and not full:
                        full = True
                        watcher.show("The disk is full: no other run is started.")
            if (received or full) and not running:
                return received[0] if received else 0
            while todo and len(running) < room and not received and not full:
                entry = todo[0]
                resumes = entry.folder.checkpoint.exists()
                try:
                    started = start(entry)
                except UserError as error:
                    if not running:
                        raise
                    room = len(running)
                    if str(error) != told:
                        told = str(error)
                        watcher.show(f"{told} The others wait until one of {room} ends.")
                    break
                if started is None:
                    break
                todo.popleft()
                entry.state, entry.error, entry.began = "running", "", time.monotonic()
                running[id(entry)] = entry, started
                watcher.event(entry, "resumes" if resumes else "started")
            if time.monotonic() - checked_at > ELSEWHERE_SECONDS:
                checked_at = time.monotonic()
                todo.extend(entry for entry in entries if entry.state == "elsewhere" and _is_free(entry, watcher))
            if not running and not todo and not any(entry.state == "elsewhere" for entry in entries):
                return 0
            watcher.refresh()
            time.sleep(POLL_SECONDS)


@contextmanager
def _stopped_by_errors(
    running: Mapping[int, tuple[SweepRun, Job]], asked: Sequence[Job], received: Sequence[int], watcher: Watcher
) -> Iterator[None]:
    """Leave no run at work, nor in a cluster's queue, where an error ends the sweep.

    Waits for them: a run takes the end of the sweep for a second signal, by which it would end before it has saved.
    asked: jobs that are stopping already. received: the signals so far; another one ends the runs at once.
    """
    try:
        yield
    except BaseException:
        left, signals = [job for _, job in running.values() if job.outcome is None], len(received)
        for job in left:
            if job not in asked:
                job.stop()
        with suppress(Exception):  # nobody may read it
            if left:
                watcher.show(f"An error ends the sweep: {len(left)} run(s) save their state and stop.")
        while any(job.poll() is None for job in left if job.outcome is None):
            if len(received) > signals:
                for job in left:
                    job.kill()
                break
            time.sleep(POLL_SECONDS)
        raise


def _end(entry: SweepRun, outcome: Outcome, *, stopping: bool, watcher: Watcher) -> bool:
    """Note how a run ended; whether it is to be started again."""
    entry.refresh()
    if entry.state == "failed" or outcome.state == "failed":
        # Where not even failed.json could be written, the run's own message is all there is.
        entry.state, entry.error = "failed", entry.error or outcome.sentence
        watcher.event(entry, "failed")
        return False
    if entry.state == "done":
        watcher.event(entry, "done")
        return False
    if entry.state == "elsewhere" or outcome.state == "elsewhere":
        entry.state = "elsewhere"
        watcher.event(entry, "is running elsewhere")
        return False
    if stopping:
        return False
    reached = entry.progress() or 0.0
    entry.deaths = 1 if reached > entry.reached else entry.deaths + 1
    entry.reached, entry.error = reached, outcome.sentence
    watcher.event(entry, "was interrupted")
    again = entry.deaths < DEATHS and not outcome.no_room
    if not again:
        entry.state = "interrupted"
    return again


def _is_free(entry: SweepRun, watcher: Watcher) -> bool:
    """Read again a run that another process had; whether it is left to this sweep."""
    entry.refresh()
    if entry.state == "elsewhere":
        return False
    if entry.state in ("done", "failed"):
        watcher.event(entry, f"{entry.state} elsewhere")
        return False
    return True


def _stopping(number: int, count: int, times: int) -> str:
    name = signal.Signals(number).name
    if times == 1:
        return f"{name}: {count} run(s) save their state and stop; another Ctrl-C ends them at once."
    return f"{name}: {count} run(s) ended at once; their last checkpoints are intact."
