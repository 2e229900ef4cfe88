"""One run, read top to bottom: build → pretrain → evaluate → record."""

from __future__ import annotations

import gc
import logging
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from rich.console import Console

from ssl_bench import conditions, distributed
from ssl_bench.callbacks.finite_loss import FiniteLoss
from ssl_bench.callbacks.progress import TrainingProgress
from ssl_bench.callbacks.replicas import Replicas
from ssl_bench.config.schema import Config
from ssl_bench.data.datamodule import DataModule, read_on_every_rank
from ssl_bench.data.image_warnings import ImageWarnings, image_warnings
from ssl_bench.devices import (
    RESUMES,
    device_type,
    failures_named,
    repeatable,
    resolve_device,
    resolve_precision,
    threads,
    why_not_compiled,
    within_memory,
)
from ssl_bench.evaluation.evaluator import Scores, reasons
from ssl_bench.evaluation.precision import full_float32
from ssl_bench.files import write_text, write_whole
from ssl_bench.methods.base import Method
from ssl_bench.nn.norm import synchronize
from ssl_bench.results.record import Record, peak_memory
from ssl_bench.results.run_folder import RunFolder
from ssl_bench.training import earlier, initial, needs, operations, preflight, second_dataset
from ssl_bench.training.build import (
    build_data,
    build_method,
    fingerprint_of,
)
from ssl_bench.training.observers import Observers, build_observers
from ssl_bench.training.scoring import final_scores, predictions, record_of_scores
from ssl_bench.training.trainer import build_trainer

SPREAD = 2_654_435_761  # between the seeds of ranks, of which PyTorch's generator on a CPU reads the last 32 bits


def run(config: Config, watchers: Sequence[pl.Callback] = ()) -> Record:
    """Do the run of ``config``, unless its folder holds the result already; returns the record.

    ``watchers`` see the training before the run's own callbacks do. Under several devices every rank calls this; rank
    0 alone decides, writes and prints.
    """
    quiet()
    chosen = config.trainer
    group = distributed.joined(
        devices=chosen.devices,
        nodes=chosen.nodes,
        cuda=resolve_device(config.trainer.accelerator).type == "cuda",
        timeout=chosen.timeout,
    )
    alike = repeatable(chosen.deterministic)
    less = "lower batch_size or evaluation.memory, or set more trainer.devices"
    named = failures_named("the run", less, RESUMES)
    with group, named, alike, threads(chosen.threads), ExitStack() as held:
        console = Console(quiet=distributed.rank() > 0)
        config = _compiled_if_possible(config, console)
        conditions.require_logger(config.logger.name)
        data = build_data(config)
        read_on_every_rank(data)
        name = distributed.agreed(fingerprint_of(config, data.digest), "configuration, data or precision")
        folder = RunFolder(Path(config.runs_dir) / name)
        if folder.finished() is None or config.rerun:  # before a folder is made, or set aside
            needs.require_labels(config, data)
            operations.require_consent(config, data)

        def claim() -> Record | None:
            held.enter_context(folder.locked())
            return earlier.finished(config, folder, console)

        record = distributed.on_rank_zero(claim)
        if record is None:
            record = _Run(config, data, resolve_precision(chosen.precision, chosen.accelerator), folder, console).do(
                watchers
            )
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # images that live on the card go with the trainer, which refers to itself
        gc.collect()
        torch.cuda.empty_cache()
    console.print(f"{folder.path}  ·  picture: {folder.picture}", highlight=False, markup=False, soft_wrap=True)
    return record


def quiet() -> None:
    """Keep the libraries' advice and deprecations of their own making away from the user's terminal."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # In float16 a first step whose gradients overflow is skipped, which is not a mistake in the order.
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", message=".*new API settings to control TF32")  # both kinds are set


def _compiled_if_possible(config: Config, console: Console) -> Config:
    """``config``, without compiling where that does not work, which is then shown: the run is one that never asked."""
    if not config.trainer.compile:
        return config
    device = resolve_device(config.trainer.accelerator)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())  # of this rank, not the first that it sees
    reason = distributed.on_rank_zero(lambda: why_not_compiled(device))
    if reason is None:
        return config
    earlier.warn(console, f"trainer.compile=true does not work on this machine ({reason}): training is not compiled.")
    return config.changed({"trainer.compile": False})


def seed_dropout(seed: int) -> None:
    """For the dropout of some backbones, which is of its own on every rank; a resumed run restores its state."""
    torch.manual_seed(seed + SPREAD * distributed.rank())


@dataclass(frozen=True)
class _Run:
    """A run that is to be trained, or resumed."""

    config: Config
    data: DataModule
    precision: str
    folder: RunFolder
    console: Console

    def do(self, watchers: Sequence[pl.Callback]) -> Record:
        started = time.perf_counter()
        resumed = distributed.on_rank_zero(self._begin)
        method = self._method()
        second = second_dataset.load(self.config, self.data.dataset)
        observers = build_observers(self.config, self.data, self.folder, self._warn, second and second[1])
        self._announce(method, resumed)
        start = initial.load(self.config, self.data.dataset.channels)
        if start is not None:
            self._print(initial.account(self.config, start))
        seen = image_warnings(self.data.dataset, self.data.splits)
        for sentence in (*seen.sentences, *preflight.advice(self.config, len(self.data.parts.pretraining))):
            self._warn(sentence)
        datasets = [self.data, *([second[0]] if second else [])]
        self._pretrain(method, observers, watchers, datasets, resume=resumed is not None)
        self._print("evaluating")
        scores = final_scores(self.config, self.data, method, observers.accuracy, self.folder)
        for reason in reasons(scores[method.evaluated]):
            self._warn(f"not scored: {reason}")
        record = self._record(method, observers, scores, seen)
        record.eval_on = second and second_dataset.description(second[0])
        record.init = None if start is None else initial.description(start)
        record.session_seconds = round(time.perf_counter() - started, 2)
        if distributed.rank() == 0:
            write_whole(
                self.folder.predictions, lambda path: np.savez_compressed(path, **predictions(scores, self.data))
            )
            record.write(self.folder.record)
        observers.recorder.logger.log_results(record.results, self.folder.picture)
        observers.recorder.logger.close()
        return record

    def _begin(self) -> int | None:
        """Write down what is run; the step of the checkpoint that it resumes from, if any."""
        step = earlier.step_to_resume(self.config, self.folder, self.console)
        self.folder.failure.unlink(missing_ok=True)  # what comes of this attempt counts
        write_text(self.folder.config, yaml.safe_dump(self.config.as_dict(), sort_keys=False, allow_unicode=True))
        return step

    @property
    def _own_statistics(self) -> bool:
        """Whether every rank has BatchNorm statistics of its own."""
        return distributed.world_size() > 1 and not self.config.trainer.sync_batchnorm

    def _method(self) -> Method:
        method = build_method(self.config, self.data.dataset, self.data)
        if self._own_statistics:
            method.require_batch(self.config.batch_size // distributed.world_size())
        elif distributed.world_size() > 1:
            synchronize(method)
        return method

    def _pretrain(
        self,
        method: Method,
        observers: Observers,
        watchers: Sequence[pl.Callback],
        datasets: Sequence[DataModule],
        *,
        resume: bool,
    ) -> None:
        config, chosen, several = self.config, self.config.trainer, distributed.world_size() > 1
        monitor = f"validation/{config.evaluation.monitor}/{method.evaluated}"
        shown = chosen.progress and distributed.rank() == 0
        trainer = build_trainer(
            [  # the recorder stands behind all that add to the history, the checkpoint behind all
                *watchers,
                *([Replicas(share_statistics=self._own_statistics)] if several else []),
                observers.timing,
                observers.code,
                FiniteLoss(),
                observers.collapse,
                observers.accuracy,
                observers.recorder,
                *([TrainingProgress(self.console, observers.history, observers.timing, monitor)] if shown else []),
                observers.checkpointer,
            ],
            device=resolve_device(config.trainer.accelerator),
            devices=chosen.devices,
            nodes=chosen.nodes,
            precision=self.precision,
            epochs=config.epochs * method.passes_per_epoch,
            accumulate=chosen.accumulate,
            clip=chosen.clip,
            share_statistics=self._own_statistics,
            folder=self.folder.path,
        )
        device = trainer.strategy.root_device
        for data in datasets:
            data.trainer = trainer  # whose ranks share the images
            no_room = data.place_on(device)
            if no_room:
                self._warn(no_room)
        seed_dropout(config.seed)
        exact = full_float32(device) if self.precision == "32-true" else nullcontext()
        with within_memory("this training", self._for_less_memory()), exact:
            trainer.fit(method, datamodule=self.data, ckpt_path=self.folder.checkpoint if resume else None)
        method.to(device)  # Lightning leaves it on the CPU

    def _for_less_memory(self) -> str:
        """What to set so that training takes less memory."""
        size = self.config.batch_size
        remedies = [f"lower batch_size={size} (trainer.accumulate adds up gradients of several batches)"]
        if self.precision == "32-true":
            remedies.append("set trainer.precision=bf16-mixed")
        if self.config.dataset.resident != "false":
            remedies.append("set dataset.resident=false")
        return " or ".join(remedies)

    def _record(self, method: Method, observers: Observers, scores: dict[str, Scores], seen: ImageWarnings) -> Record:
        evaluator, timing = observers.accuracy.evaluator, observers.timing
        record = record_of_scores(
            scores,
            self.config,
            self.data,
            evaluator,
            seen,
            fingerprint=self.folder.fingerprint,
            code=observers.code.now,
            protocols=list(evaluator.protocols),
            parts=("pretraining", "bank", "probe", "validation"),
        )
        return replace(
            record,
            method=self.config.method.name,
            evaluated=method.evaluated,
            curves=observers.history.accuracy_curves(),
            warnings=observers.collapse.warned,
            precision=self.precision,
            device=device_type(self.config.trainer.accelerator),
            batch_statistics="per_device" if self._own_statistics else "global",
            processes=distributed.world_size(),
            student_steps=method.student_steps,
            train_seconds=round(timing.seconds, 2),
            core_seconds=round(timing.core_seconds, 2),
            images_per_second=round(timing.images_per_second, 1),
            peak_memory_bytes=peak_memory(),
            earlier_code=observers.code.earlier,
        )

    def _announce(self, method: Method, resumed: int | None) -> None:
        world, epochs = distributed.world_size(), self.config.epochs * method.passes_per_epoch
        self._print(
            f"{self.config.method.name} on {len(self.data.parts.pretraining):,} images of "
            f"{self.data.dataset.name}, {epochs} epoch{'s' if epochs > 1 else ''}, {self.precision}"
            + (f", {world} processes" if world > 1 else "")
            + ("" if resumed is None else f", resuming after step {resumed}")
        )

    def _print(self, sentence: str) -> None:
        self.console.print(sentence, highlight=False)

    def _warn(self, sentence: str) -> None:
        earlier.warn(self.console, sentence)
