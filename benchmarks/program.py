"""The whole program as users run it against the bare loop within it.

The program's time is everything from the start of one epoch to the start of the next: loader, views, Lightning,
callbacks, progress bar, metrics.csv, checkpoints. Only accuracies are left out, by asking for none before the end.
Its clock stands still while the bare loop has its turn.
"""

from __future__ import annotations

import io
import os
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytorch_lightning as pl
import torch

from benchmarks.bare import BareLoop, default_loop
from benchmarks.measurement import HOST, Measurement, Target, rates, seconds, wait
from benchmarks.synthetic import ACCELERATOR, batches, configuration, in_catalog, synthetic_dataset
from ssl_bench import devices
from ssl_bench.batch import Batch
from ssl_bench.training import build, run

NEVER = 1_000_000  # epochs


@dataclass(frozen=True)
class Case:
    """What is trained, and what share of the bare loop's speed shall be left."""

    method: str
    width: int
    stem: str
    channels: int
    side: int
    batch_size: int
    steps: int  # per epoch
    at_least: float

    def __str__(self) -> str:
        return f"{self.method}, ResNet-18 width {self.width}, stem {self.stem}, {self.side} px, batch {self.batch_size}"


CASES = (
    Case("simclr", 64, "cifar", channels=3, side=32, batch_size=128, steps=8, at_least=0.95),
    Case("simclr", 16, "cifar", channels=3, side=32, batch_size=128, steps=32, at_least=0.85),
    Case("simclr", 16, "small", channels=1, side=28, batch_size=128, steps=64, at_least=0.75),
    Case("clbo", 16, "small", channels=1, side=28, batch_size=128, steps=64, at_least=0.75),
)
SMALL_CASES = (Case("clbo", 4, "small", channels=1, side=28, batch_size=10, steps=2, at_least=0.75),)


def measure(repeats: int, *, small: bool, device: torch.device) -> list[Measurement]:
    """One run of the program per case, with a pair of measurements from every epoch."""
    return [_measure(case, repeats, device) for case in (SMALL_CASES if small else CASES)]


def _measure(case: Case, repeats: int, device: torch.device) -> Measurement:
    dataset = synthetic_dataset(case.steps * case.batch_size, case.channels, case.side)
    config = configuration(
        dataset,
        f"method={case.method}",
        f"backbone.width={case.width}",
        f"backbone.stem={case.stem}",
        f"batch_size={case.batch_size}",
        f"epochs={repeats + 2}",  # the first warms up, and behind the last there are accuracies
        f"monitor_every={NEVER}",
        f"eval_every={NEVER}",
        "subset=null",
        "scale.hold_out_validation=false",
        "evaluation.protocols=[knn1]",
        "evaluation.curves=[knn1]",
        f"trainer.accelerator={ACCELERATOR[device.type]}",
    )
    precision = devices.resolve_precision(config.trainer.precision, config.trainer.accelerator)
    method = build.build_method(config, dataset).to(device)
    images = dataset.read(None)["train"].images  # type: ignore[arg-type]
    turns = Turns(default_loop(method, batches(images, case.batch_size)[0], precision), device)
    # Drawn into memory, but drawn: the progress bar is part of what users pay for.
    screen = redirect_stdout(io.StringIO()), patch.dict(os.environ, {"FORCE_COLOR": "1"})
    with TemporaryDirectory() as folder, in_catalog(dataset), screen[0], screen[1]:
        run.run(replace(config, runs_dir=folder), [turns])
    return Measurement(
        benchmark="program",
        case=str(case),
        ours="python -m ssl_bench, evaluation left out",
        baseline="bare loop on ready views",
        unit="images/s",
        pairs=rates(turns.pairs, case.steps * case.batch_size),
        meaning="share of the bare loop's speed",
        target=Target(case.at_least, at_least=True),
    )


class Turns(pl.Callback):
    """Times every epoch of the program but the first and the last, in turn with as many steps of the bare loop.

    On the CPU these have their turn before each step. An accelerator is to be given work ahead of time, so there the
    bare loop takes all its steps before the epoch, and clocks stop when the device has done what it was given.
    """

    def __init__(self, bare: BareLoop, device: torch.device = HOST) -> None:
        self.bare = bare
        self.device = device
        self.pairs: list[tuple[float, float]] = []
        self._program = self._bare = self._since = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        wait(self.device)
        self._pause()
        if trainer.current_epoch > 1:  # the epoch that has just ended is at least the second
            self.pairs.append((self._program, self._bare))
        self._program = self._bare = 0.0
        if self.device.type != "cpu":
            self._bare = seconds(partial(self._whole_epoch, int(trainer.num_training_batches)), self.device)
        self._since = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, method: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if self.device.type == "cpu":
            self._pause()
            self._bare += seconds(self.bare.step)
            self._since = time.perf_counter()

    def _whole_epoch(self, steps: int) -> None:
        for _ in range(steps):
            self.bare.step()

    def _pause(self) -> None:
        self._program += time.perf_counter() - self._since
