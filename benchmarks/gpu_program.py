"""What the sections of gpu.sh share: the device, sizes, timing, and the whole program with its epochs timed.

DEVICE=cpu tries all sections at toy sizes, whose figures mean nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks import methods
from benchmarks.synthetic import configuration, in_catalog, synthetic_dataset
from ssl_bench.config.options import GROUPS
from ssl_bench.config.schema import Config
from ssl_bench.data.catalog import Dataset
from ssl_bench.training import run

DEVICE = torch.device(os.environ.get("DEVICE", "cuda"))
CUDA = DEVICE.type == "cuda"
ACCELERATOR = "gpu" if CUDA else "cpu"
# The most different ones first, should time run out.
FIRST = ["simclr", "clbo", "byol", "moco", "pic", "swav", "directpred"]
METHODS = [*FIRST, *(name for name in GROUPS["method"] if name not in FIRST)] if CUDA else FIRST[:2]
STEPS = 30 if CUDA else 3  # of an epoch
SIZES = (
    methods.Sizes(width=64, batch_size=256, images=STEPS * 256, keys=4096, prototypes=512, queue=3840, negatives=4096)
    if CUDA
    else methods.Sizes(width=8, batch_size=8, images=STEPS * 8, keys=32, prototypes=16, queue=16, negatives=16)
)
NEVER = 1_000_000  # epochs
Tell = Callable[[str, Any], None]


def wait() -> None:
    """Until the device has done what it was given."""
    if CUDA:
        torch.cuda.synchronize()


def per_call(work: Callable[[], object], calls: int, warm: int = 3) -> float:
    """Mean seconds of a call among many, the device's work included; calls do not wait for each other."""
    for _ in range(warm):
        work()
    wait()
    began = time.perf_counter()
    for _ in range(calls):
        work()
    wait()
    return (time.perf_counter() - began) / calls


class Enough(Exception):  # noqa: N818 (nothing is wrong)
    """Ends a run whose epochs have been timed."""


class Epochs(pl.Callback):
    """Seconds from the start of an epoch to the start of the next, and what waits for the device in the first one.

    Ends the run after ``count`` epochs, with a digest of all weights.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.seconds: list[float] = []
        self.waits: Counter[str] = Counter()  # by file and line, in the second half of the first epoch
        self.digest = ""
        self._began: float | None = None
        self._watched = contextlib.ExitStack()

    def on_train_epoch_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        wait()
        if self._began is not None:
            self.seconds.append(time.perf_counter() - self._began)
        if len(self.seconds) == self.count:
            weights = torch.cat([p.detach().flatten() for p in method.parameters()]).cpu()
            self.digest = hashlib.sha256(weights.numpy().tobytes()).hexdigest()
            raise Enough
        self._began = time.perf_counter()

    def on_train_batch_start(self, trainer: pl.Trainer, method: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if CUDA and trainer.current_epoch == 0 and batch_idx == STEPS // 2:
            self._caught = self._watched.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if CUDA and trainer.current_epoch == 0 and trainer.fit_loop.batch_idx == STEPS - 1:
            torch.cuda.set_sync_debug_mode("default")
            self._watched.close()
            found = [warning for warning in self._caught if "synchronizing CUDA operation" in str(warning.message)]
            self.waits.update(f"{Path(warning.filename).name}:{warning.lineno}" for warning in found)


def program(config: Config, dataset: Dataset, epochs: int = 4) -> Epochs:
    """Train by the whole program; the first epoch is not to be counted."""
    watched = Epochs(epochs)
    shown = io.StringIO()
    screen = contextlib.redirect_stdout(shown)
    with TemporaryDirectory() as folder, in_catalog(dataset), screen, contextlib.suppress(Enough):
        run.run(replace(config, runs_dir=folder), [watched])
    print("".join(line for line in shown.getvalue().splitlines(keepends=True) if "warning" in line), end="")
    return watched


def configured(name: str, *overrides: str) -> tuple[Config, Dataset]:
    """The configuration of a run at ``SIZES``, and its images."""
    dataset = synthetic_dataset(SIZES.images, channels=3, side=32)
    own = [f"method.{option}={value}" for option, value in SIZES.of(name).items()]
    if name == "swav":
        own.append("method.queue_from=1")
    shape = ["backbone.stem=cifar", f"backbone.width={SIZES.width}", f"batch_size={SIZES.batch_size}"]
    return configuration(dataset, f"method={name}", *shape, *own, *NO_SCORES, *overrides, scale="paper"), dataset


NO_SCORES = (
    "epochs=50",
    "subset=null",
    f"monitor_every={NEVER}",
    f"eval_every={NEVER}",
    f"trainer.accelerator={ACCELERATOR}",
)


def rate(watched: Epochs) -> float:
    """Images/s of the best epoch."""
    return SIZES.images / min(watched.seconds[1:])
