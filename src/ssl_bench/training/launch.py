"""One run in several processes of this machine: start one per device, pass signals on, report once what went wrong.

``torchrun`` would do as well, and does for several machines; but it answers every error with a traceback of its own and
another exit status, and gives ranks half a minute to save. A rank is
``python -m ssl_bench.training.launch FOLDER``, where the folder holds the resolved configuration,
the file by which ranks find each other, and what they report at the end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ssl_bench.config.schema import Config
from ssl_bench.entry import importing, take_over, watch_output
from ssl_bench.errors import SIGNALLED, UserError
from ssl_bench.files import write_text
from ssl_bench.machine import cores
from ssl_bench.results.record import Record

POLL_SECONDS = 0.05  # between two polls of the ranks
RECORD = "record.json"  # of the run, from rank 0 to the launcher
GRACE_SECONDS = 15.0  # for the other ranks to end by themselves once one has failed


def needed(config: Config) -> bool:
    """Whether this process is to start ranks: it is asked for several and is none itself."""
    devices, nodes = config.trainer.devices, config.trainer.nodes
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):  # which Lightning reads as it is imported
        if not os.environ.get(name, "0").isdecimal():
            raise UserError(f"{name}={os.environ[name]} in the environment is no number: unset it, or use torchrun.")
    if devices * nodes == 1 or {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return False
    if nodes > 1:
        raise UserError(
            f"trainer.nodes={nodes}: start the same command on each machine by torchrun --nnodes={nodes} "
            f"--nproc-per-node={devices} --rdzv-backend=c10d --rdzv-endpoint=HOST:PORT -m ssl_bench and these options."
        )
    return True


def train(config: Config) -> Record:
    """One run, in as many processes as it asks for."""
    if needed(config):
        return launch(config)
    with importing():
        from ssl_bench.training.run import run

    return run(config)


def launch(config: Config) -> Record:
    """Run ``config`` in ``trainer.devices`` processes; returns the record.

    Raises:
        UserError: what ended them, if it was not the end.
    """
    count = config.trainer.devices
    with tempfile.TemporaryDirectory(prefix="ssl_bench-") as name, listening() as received:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config.as_dict()), encoding="utf-8")
        ranks = [_start(folder, rank, count) for rank in range(count)]
        killed = _wait(ranks, received)
        _report(folder, [process.returncode for process in ranks], killed, received)
        return Record.from_json(json.loads((folder / RECORD).read_text(encoding="utf-8")))


def _start(folder: Path, rank: int, count: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "SSL_BENCH_MEETING": str(folder / "meeting"),
    }
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    with (folder / f"{rank}.err").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "ssl_bench.training.launch", str(folder)],
            env=environment,
            stdin=subprocess.PIPE,  # ends with this process, whatever ends it
            stdout=subprocess.DEVNULL if rank else None,
            stderr=errors if rank else None,
            start_new_session=True,  # so that Ctrl-C reaches them once, from here
        )


@contextmanager
def listening() -> Iterator[list[int]]:
    """The signals that ask this process to stop, as they come."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)

    if threading.current_thread() is not threading.main_thread():  # a sweep's own worker; nobody signals threads
        yield received
        return
    before = take_over(receive)
    try:
        yield received
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _wait(ranks: list[subprocess.Popen[bytes]], received: list[int]) -> set[int]:
    """Until all have ended; the ranks that had to be killed, since another failed or a second signal came."""
    passed_on, deadline, killed = 0, float("inf"), set[int]()
    while any(process.poll() is None for process in ranks):
        time.sleep(POLL_SECONDS)
        for number in received[passed_on:]:
            for process in ranks:
                if process.poll() is None:
                    process.send_signal(number)
            passed_on += 1
        if deadline == float("inf") and (passed_on > 1 or any(process.returncode for process in ranks)):
            deadline = time.monotonic() + GRACE_SECONDS
        if time.monotonic() > deadline:
            for rank, process in enumerate(ranks):
                if process.poll() is None:
                    process.kill()
                    killed.add(rank)
    return killed


def _report(folder: Path, statuses: list[int], killed: set[int], received: list[int]) -> None:
    """UserError with the message of the rank that failed; not of those that failed since it had."""
    reports = {}
    for rank in range(len(statuses)):
        report = folder / f"{rank}.json"
        if report.exists():
            reports[rank] = json.loads(report.read_text(encoding="utf-8"))
    failed = [rank for rank, status in enumerate(statuses) if status]
    if not failed:
        return
    silent = {rank for rank in failed if statuses[rank] == -signal.SIGABRT and rank not in reports}
    lost = {rank for rank in failed if reports.get(rank, {}).get("lost")} | silent
    causes = [rank for rank in failed if rank not in killed | lost]
    # A rank's own report; else a rank that was killed, of which errors of others without a report may be the outcome.
    known = [rank for rank in causes if rank in reports] or [rank for rank in causes if statuses[rank] < 0]
    cause = (known or causes or sorted(silent) or failed)[0]
    if cause in reports:
        raise UserError(reports[cause]["sentence"], reports[cause]["status"])
    if received:
        name = signal.Signals(received[0]).name
        raise UserError(
            f"stopped by {name}; the same command resumes from the last checkpoint.", SIGNALLED + received[0]
        )
    if cause in silent:
        raise UserError(
            f"rank {cause} was ended by SIGABRT, as NCCL does where others do not answer within trainer.timeout; "
            "the last checkpoint is intact and the same command resumes from there.",
            SIGNALLED + signal.SIGABRT,
        )
    if statuses[cause] < 0:
        name = signal.Signals(-statuses[cause]).name
        raise UserError(
            f"rank {cause} was ended by {name}; the last checkpoint is intact and the same command resumes from there.",
            SIGNALLED - statuses[cause],
        )
    sys.stderr.write((folder / f"{cause}.err").read_text(encoding="utf-8", errors="replace"))
    raise UserError(f"rank {cause} ended with the error above.", statuses[cause])


def main() -> int:
    """Be the rank that the environment names, of the run in the given folder; returns the exit status."""
    threading.Thread(target=_stop_with_the_launcher, daemon=True).start()
    watch_output()
    folder = Path(sys.argv[1])
    config = Config.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    try:
        with importing():
            from ssl_bench.training.run import run

        record = run(config)
        if os.environ["RANK"] == "0" and folder.exists():  # it goes with the launcher
            record.write(folder / RECORD)
        return 0
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT
    except UserError as error:
        from ssl_bench.distributed import RankLost

        report = {"sentence": str(error), "status": error.status, "lost": isinstance(error, RankLost)}
        path = folder / f"{os.environ['RANK']}.json"
        if folder.exists():  # it goes with the launcher
            with suppress(UserError):  # no room for it either; the status says as much
                write_text(path, json.dumps(report))
        return error.status


def _stop_with_the_launcher() -> None:
    """A launcher that was killed can pass no signal on: save and stop, as if it had."""
    os.read(0, 1)  # nothing is ever written; not through sys.stdin, which Python could not close meanwhile
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
