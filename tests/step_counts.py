"""Where a training step copies to the device, reads from it, or waits for a shape, counted on an emulated device.

    PYTHONPATH=. python tests/step_counts.py METHOD [key=value ...]

prints one line per place in the package, with how often a step comes there (steps after the first ten; the last of an
epoch, which measures collapse, is not among them), and how many operations the step launches. For instance

    PYTHONPATH=. python tests/step_counts.py clbo dataset.resident=false augment.groups.local.count=2
    PYTHONPATH=. python tests/step_counts.py pic launches=true

``launches=true`` adds where the operations are launched. `measure` does the same for tests.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
from benchmarks.synthetic import configuration, in_catalog, synthetic_dataset

from emulated import KINDS, LAUNCH, Counts, counting, emulated, emulation
from ssl_bench.config.compose import Config
from ssl_bench.training.run import run

FIRST, STEPS = 10, 4  # steps that warm up, steps that are counted
SIZE, CHANNELS, BATCH = 16, 3, 16
# Small networks, whole batches and every operation of a step: some methods do some of it only every so often.
SMALL = (
    "backbone.stem=cifar",
    "backbone.width=8",
    f"batch_size={BATCH}",
    "epochs=3",
    "subset=null",
    "scale.projector_hidden=16",
    "scale.projector_out=16",
    "augment.groups.global.blur=0.5",
    "augment.groups.global.solarize=0.2",
    "trainer.precision=32-true",
    "trainer.progress=false",
)
OPTIONS = {
    "moco": ("method.queue=64",),
    "moby": ("method.queue=64",),
    "swav": ("method.queue=64", "method.queue_from=1", "method.prototypes=32"),
    "pic": ("method.negatives=64",),
}
CROPS = ("augment.groups.local.count=2", "augment.groups.local.size=8")


class _Enough(Exception):  # noqa: N818 (nothing is wrong)
    pass


class _Steps(pl.Callback):
    """Sums what happens between the ends of steps; stands before the run's own callbacks, as watchers do."""

    def __init__(self, running: Counts, first: int, steps: int) -> None:
        self.running, self.first, self.steps = running, first, steps
        self.counted = Counts()

    def on_train_batch_end(self, trainer: pl.Trainer, method: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx >= self.first:
            self.counted += self.running
        self.running.clear()
        if batch_idx == self.first + self.steps - 1:
            raise _Enough


def measure(method: str, *overrides: str, first: int = FIRST, steps: int = STEPS) -> Counts:
    """What ``steps`` training steps of ``method`` do after the ``first``, under ``overrides`` of the command line."""
    dataset = synthetic_dataset(BATCH * (first + steps + 1), CHANNELS, SIZE)
    given = {override.partition("=")[0] for override in overrides}
    small = [override for override in (*SMALL, *OPTIONS.get(method, ())) if override.partition("=")[0] not in given]
    config: Config = configuration(dataset, f"method={method}", *small, *overrides, scale="paper")
    with tempfile.TemporaryDirectory() as folder, in_catalog(dataset), emulation(), counting() as running:
        watch = _Steps(running, first, steps)
        with contextlib.suppress(_Enough):
            run(emulated(replace(config, runs_dir=folder)), [watch])
    return watch.counted


def main(overrides: list[str]) -> None:
    launches = "launches=true" in overrides
    method, *rest = [override for override in overrides if override != "launches=true"]
    counts = measure(method, *rest)
    for kind in KINDS:
        print(f"{kind:>14} {counts.of(kind) / STEPS:7.2f} per step")
        if kind != LAUNCH or launches:
            print(counts.table(kind, per=STEPS))


if __name__ == "__main__":
    main(sys.argv[1:])
