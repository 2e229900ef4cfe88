"""A short real run of one kind: what a step, an evaluation, a checkpoint and the end of a run cost.

The run is the program's own, with epochs of a few steps. Its first epoch warms up; the second and the third give the
step, the gap behind the second is what every epoch costs beside its steps, and the gap behind the third holds the
monitor, too. The last has the curves behind it, and then come the baselines, the final evaluation and the files. A
sample of the images is evaluated. Where evaluation is known already, from a run of the same images and as many
networks, the run is broken off before.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch

from ssl_bench.callbacks.accuracy_monitor import AccuracyMonitor
from ssl_bench.config.schema import Config, Logger
from ssl_bench.data.datamodule import DataModule
from ssl_bench.devices import resolve_device
from ssl_bench.evaluation.baselines import kept
from ssl_bench.methods.base import Method
from ssl_bench.plan.forecast import Baseline, Evaluation, Measured
from ssl_bench.plan.sampled import Sampled, wait
from ssl_bench.results.record import Record, peak_memory
from ssl_bench.results.run_folder import RunFolder
from ssl_bench.training.build import baselines, clean_arguments
from ssl_bench.training.run import run

STEPS_PER_EPOCH = 10
STEPS = 20  # measured at least
SECONDS = 2.0  # measured at least: small steps vary
MONITOR_EVERY = 3
NEVER = 1_000_000  # epochs


class _Enough(Exception):  # noqa: N818 (nothing is wrong)
    """The run need not continue."""


def measure(config: Config, known: dict[str, Evaluation]) -> Measured:
    """Run ``config`` for a few steps; with an evaluation, unless it is among the ``known``."""
    folder = tempfile.mkdtemp(prefix="ssl_bench-")
    try:
        return _measure(_shortened(config, folder), known, Path(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _shortened(config: Config, folder: str) -> Config:
    trainer = replace(
        config.trainer,
        # By name, so that none is refused for its time on a CPU.
        accelerator=resolve_device(config.trainer.accelerator).type,
        devices=1,
        nodes=1,
        checkpoint_seconds=float(NEVER),
        progress=False,
    )
    return replace(
        config,
        runs_dir=folder,
        epochs=NEVER,
        monitor_every=MONITOR_EVERY,
        eval_every=NEVER,
        logger=Logger("none", {}),
        trainer=trainer,
    )


def _measure(config: Config, known: dict[str, Evaluation], folder: Path) -> Measured:
    watch = _Stopwatch(config, known)
    began = watch.now()
    record: Record | None = None
    with suppress(_Enough):
        record = run(config, [watch])
    ended = watch.now()
    evaluation, memory = known.get(watch.key), peak_memory() or 0
    gpu_memory = torch.cuda.max_memory_reserved(watch.device) if watch.device.type == "cuda" else 0
    if record is not None:
        files = RunFolder(folder / record.fingerprint)
        load = ended - watch.sampled.owed - began - (record.session_seconds or 0.0)
        everything = sum(file.stat().st_size for file in files.path.rglob("*") if file.is_file())
        evaluation = Evaluation(
            key=watch.key,
            load=load,
            monitor=max(0.0, watch.monitor_gap - watch.plain_gap),
            curves=max(0.0, watch.last_gap - watch.plain_gap - watch.save),
            final=ended - watch.trained_at,
            files=everything - files.checkpoint.stat().st_size,
            baselines=watch.baselines,
            memory=memory + watch.sampled.lacking["cpu"],
            gpu_memory=gpu_memory + watch.sampled.lacking["cuda"],
        )
    assert evaluation is not None
    return Measured(
        evaluation=evaluation,
        start=max(0.0, watch.started_at - began - evaluation.load + watch.warming - watch.warm_steps * watch.step),
        step=watch.step,
        epoch=watch.plain_gap,
        save=watch.save,
        checkpoint=watch.checkpoint,
        steps=watch.real_steps,
        passes_per_epoch=watch.passes_per_epoch,
        memory=max(memory, evaluation.memory),
        gpu_memory=max(gpu_memory, evaluation.gpu_memory),
    )


class _Stopwatch(pl.Callback):
    """Stands before the run's own callbacks: their work is in the time until its next turn."""

    def __init__(self, config: Config, known: dict[str, Evaluation]) -> None:
        self.config = config
        self.device = resolve_device(config.trainer.accelerator)
        self.known = known
        self.key = ""
        self.steps = self.warm_steps = self.real_steps = self.checkpoint = 0
        self.passes_per_epoch = 1
        self.started_at = self.trained_at = self.warming = self.seconds = self.save = 0.0
        self.plain_gap = self.monitor_gap = self.last_gap = 0.0
        self._began = self._ended = 0.0
        self.baselines: tuple[Baseline, ...] = ()
        self.sampled: Sampled

    def now(self) -> float:
        """Seconds, with those that a sample owes."""
        wait(self.device)
        return time.perf_counter() + (self.sampled.owed if hasattr(self, "sampled") else 0.0)

    @property
    def step(self) -> float:
        return self.seconds / self.steps

    def setup(self, trainer: pl.Trainer, method: pl.LightningModule, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(method, Method)
        assert isinstance(data, DataModule)
        self.real_steps = len(data.parts.pretraining) // data.batch_size
        self.passes_per_epoch = method.passes_per_epoch
        (monitor,) = (found for found in trainer.callbacks if isinstance(found, AccuracyMonitor))  # type: ignore[attr-defined]
        monitor.evaluator = self.sampled = Sampled(monitor.evaluator, data, self.device)
        trainer.limit_train_batches = min(STEPS_PER_EPOCH, self.real_steps)
        plain = self.config.as_dict()
        chosen = {name: plain[name] for name in ("dataset", "subset", "labels", "evaluation", "backbone", "eval_on")}
        self.key = json.dumps([chosen, self.config.trainer.precision, len(method.networks())], sort_keys=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        now, over = self.now(), trainer.current_epoch
        self.started_at = self.started_at or now
        if over == 2:
            self.plain_gap = now - self._ended
        elif over == MONITOR_EVERY:
            self.monitor_gap = now - self._ended
        elif over == 1:
            self._save(trainer)
        if over >= MONITOR_EVERY and self.steps >= STEPS and self.seconds >= SECONDS:
            trainer.fit_loop.max_epochs = over + 1
        self._began = self.now()

    def on_train_epoch_end(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        self._ended = self.now()
        steps, seconds = int(trainer.num_training_batches), self._ended - self._began
        if trainer.current_epoch == 0:
            self.warm_steps, self.warming = steps, seconds
            return
        self.steps, self.seconds = self.steps + steps, self.seconds + seconds
        if self.key in self.known and self.plain_gap and self.steps >= STEPS and self.seconds >= SECONDS:
            raise _Enough

    def on_train_end(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        self.last_gap = self.now() - self._ended
        self.baselines = tuple(self._baselines(trainer.datamodule))  # type: ignore[attr-defined]
        self.trained_at = self.now()

    def _baselines(self, data: DataModule) -> Iterator[Baseline]:
        """Score them one by one, so that the run finds them as most runs of a sweep do."""
        config, dataset = self.config, data.dataset
        network = {**config.backbone.as_dict(), "channels": dataset.channels}
        clean = clean_arguments(config, dataset)
        found = baselines(config, data, self.sampled, self.device, network=network, clean=clean)
        for identity, compute in found.values():
            began = self.now()
            kept(Path(config.runs_dir) / "baselines", identity, compute)
            yield Baseline(identity, self.now() - began)

    def _save(self, trainer: pl.Trainer) -> None:
        path = Path(trainer.default_root_dir) / "measured.ckpt"
        began = time.perf_counter()
        trainer.save_checkpoint(path)
        self.save = time.perf_counter() - began
        self.checkpoint = path.stat().st_size
        path.unlink()
