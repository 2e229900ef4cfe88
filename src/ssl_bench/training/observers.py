"""The callbacks that a run has whatever its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ssl_bench import distributed
from ssl_bench.callbacks.accuracy_monitor import AccuracyMonitor, Elsewhere
from ssl_bench.callbacks.checkpointer import Checkpointer
from ssl_bench.callbacks.code_history import CodeHistory
from ssl_bench.callbacks.collapse_monitor import CollapseMonitor
from ssl_bench.callbacks.logger import Logger
from ssl_bench.callbacks.recorder import Recorder
from ssl_bench.callbacks.timing import Timing
from ssl_bench.config.schema import Config
from ssl_bench.data.datamodule import DataModule
from ssl_bench.results.code import code_digest
from ssl_bench.results.history import History
from ssl_bench.results.record import code_version
from ssl_bench.results.run_folder import RunFolder
from ssl_bench.training import loggers
from ssl_bench.training.build import build_evaluator, clean_arguments

CODE = code_version()  # as loaded: the checkout may move on while a run is at work


@dataclass(frozen=True)
class Observers:
    """The record of a run holds what they have gathered."""

    history: History
    timing: Timing
    code: CodeHistory
    collapse: CollapseMonitor
    accuracy: AccuracyMonitor
    recorder: Recorder
    checkpointer: Checkpointer


def build_observers(
    config: Config,
    data: DataModule,
    folder: RunFolder,
    warn: Callable[[str], None],
    elsewhere: Elsewhere | None = None,
) -> Observers:
    """Those of one run, or of one of its ranks; only the first has a logger.

    warn: shows a warning. elsewhere: a second dataset of the curves.
    """
    history, timing, logger = History(), Timing(), Logger()
    if distributed.rank() == 0:
        logger = loggers.build_logger(config, folder=folder.path, fingerprint=folder.fingerprint, warn=warn)
    return Observers(
        history,
        timing,
        CodeHistory({**CODE, "digest": code_digest(config.method.target)}),
        CollapseMonitor(history, warn),
        AccuracyMonitor(
            build_evaluator(config, data, clean_arguments(config, data.dataset)),
            history,
            monitor=config.evaluation.monitor,
            monitor_every=config.monitor_every,
            curves=config.evaluation.curves,
            curves_every=config.eval_every,
            elsewhere=elsewhere,
        ),
        Recorder(history, folder.metrics, timing, logger),
        Checkpointer(
            folder.checkpoint, fingerprint=folder.fingerprint, every_seconds=config.trainer.checkpoint_seconds
        ),
    )
