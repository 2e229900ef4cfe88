"""Runs as jobs of a cluster, by submitit: one job for each, queued again when its time is up."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.sweep import local
from ssl_bench.sweep.cell import Outcome
from ssl_bench.sweep.grid import SweepRun

TIMEOUTS = 1000  # a run may be queued again so often
SAVE_SECONDS = 120  # between the cluster's warning and its time limit
POLL_SECONDS = 2.0  # between two looks for a job's result on the disk that the cluster shares
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)  # submitit's, unless SUBMITIT_PREEMPT_SIGNAL is another


class Run:
    """What a job does: the run in a process of its own, so that it can be asked to save when the job's time is up."""

    def __init__(self, config: Config, path: Path) -> None:
        self.config = config
        self.path = path

    def __call__(self) -> Outcome:
        # The cluster sends its warning to every process of the job. The run, which it would end, never gets it, nor do
        # its ranks: what is blocked here stays blocked in what is started here.
        signal.pthread_sigmask(signal.SIG_BLOCK, WARNINGS)
        # Not a fork of the job: submitit's signal handlers would be the run's.
        self.job = local.Job(multiprocessing.get_context("spawn"), self.config, self.path)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WARNINGS)
        outcome = None
        while outcome is None:
            outcome = self.job.poll(seconds=1.0)
        return outcome

    def checkpoint(self) -> Any:
        """Called by submitit when the job must end: what to queue in its place."""
        from submitit.helpers import DelayedSubmission

        self.job.stop()
        self.job.process.join()
        return DelayedSubmission(Run(self.config, self.path))


class Submitted:
    """A job in the queue or at work."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self.outcome: Outcome | None = None
        self.next_poll = 0.0

    def poll(self) -> Outcome | None:
        if time.monotonic() < self.next_poll:
            return None
        self.next_poll = time.monotonic() + POLL_SECONDS
        if not self.job.done():
            return None
        try:
            self.outcome = Outcome(*self.job.result())
        except Exception as error:  # of submitit: the job was cancelled, killed, or could not start
            lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
            reason = lines[-1] if lines else type(error).__name__
            self.outcome = Outcome("interrupted", f"job {self.job.job_id}: {reason}")
        return self.outcome

    def stop(self) -> None:
        self.job.cancel(check=False)  # the cluster's SIGTERM makes the run save

    def kill(self) -> None:
        self.job.cancel(check=False)


def submitter(settings: Mapping[str, Any], runs_dir: Path) -> Callable[[SweepRun], Submitted]:
    """What submits a run; UserError without submitit, or where there is no such cluster."""
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise UserError(
            "launcher=slurm needs submitit: pip install 'ssl-bench[slurm]', or set launcher=local."
        ) from None
    logging.getLogger("submitit").setLevel(logging.ERROR)
    cluster, folder = settings["slurm.cluster"], (runs_dir / ".slurm").absolute()
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=TIMEOUTS)
    except RuntimeError as error:
        raise UserError(
            f"slurm.cluster={cluster} cannot be used here ({str(error).splitlines()[0]}): start the sweep on a machine "
            "that can submit jobs, or set launcher=local."
        ) from None
    executor.update_parameters(
        name="ssl_bench",
        timeout_min=settings["slurm.minutes"],
        gpus_per_node=settings["slurm.gpus"],
        cpus_per_task=settings["slurm.cpus"],
        slurm_partition=settings["slurm.partition"],
        slurm_signal_delay_s=SAVE_SECONDS,
    )

    def submit(entry: SweepRun) -> Submitted:
        config = replace(
            entry.config,
            runs_dir=str(Path(entry.config.runs_dir).absolute()),
            data_dir=str(Path(entry.config.data_dir).absolute()),
        )
        try:
            return Submitted(executor.submit(Run(config, entry.folder.path.absolute())))
        except FailedJobError as error:
            reason = " ".join(str(error).split()) or "it does not say why"
            raise UserError(
                f"the cluster refuses a job ({reason}); mend slurm.partition and the other slurm options, or set jobs=."
            ) from None

    return submit
