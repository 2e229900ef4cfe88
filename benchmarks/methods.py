"""What each method costs: its training step, its loss alone and its memory, against SimCLR's.

The step is all that a method does in training: forward passes of student, teacher and predictor, loss, backward,
optimiser, and what follows it. Only the views are ready. The run stands at half its way, where SwAV's queue is on and
PIC's classes are behind by an epoch.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.bare import Moment, TrainingLoop
from benchmarks.instances import come_round
from benchmarks.knn import MEMORY, growth
from benchmarks.measurement import Measurement, Target, rates, rotate
from benchmarks.synthetic import batches, configuration, pictures, synthetic_dataset
from ssl_bench import devices
from ssl_bench.batch import Batch
from ssl_bench.config.options import GROUPS, comments
from ssl_bench.methods.base import Step
from ssl_bench.methods.pic import PIC
from ssl_bench.nn.queue import Queue
from ssl_bench.training import build

BASELINE = "simclr"
# Of the step's time. A teacher's forward pass is a third of the student's forward and backward; PIC has one view.
TARGETS = {
    "moco": 1.40,
    "moby": 1.40,
    "byol": 1.40,
    "clbo": 1.40,
    "simsiam": 1.05,
    "barlow_twins": 1.05,
    "vicreg": 1.05,
    "directpred": 1.45,
    "swav": 1.10,
    "pic": 0.65,
}
LOSS = Target(0.01, at_least=False)
TURNS = 2  # of a pair: CLBO's teacher moves at every second step
STEPS = 3  # while memory is watched


@dataclass(frozen=True)
class Sizes:
    """A step's sizes; the backbone is a ResNet-18 with CIFAR stem on 32 px, the heads are those of scale=paper."""

    width: int
    batch_size: int
    images: int  # that the run is trained on
    keys: int  # M of a queue, but for SwAV's
    prototypes: int  # P of SwAV
    queue: int  # of SwAV, for each view
    negatives: int  # K of PIC

    def __str__(self) -> str:
        return f"ResNet-18 width {self.width}, 32 px, batch {self.batch_size}"

    def of(self, name: str) -> dict[str, int]:
        """What of this is an option of the method ``name``."""
        known = {
            "swav": {"prototypes": self.prototypes, "queue": self.queue},
            "pic": {"negatives": self.negatives},
        }
        others = {"queue": self.keys} if "method.queue" in comments(f"method/{name}.yaml", "method") else {}
        return known.get(name, others)


FULL = Sizes(width=64, batch_size=128, images=50_000, keys=4096, prototypes=512, queue=3840, negatives=4096)
SMALL = Sizes(width=8, batch_size=8, images=200, keys=32, prototypes=16, queue=16, negatives=40)


def measure(repeats: int, *, small: bool, device: torch.device) -> list[Measurement]:
    """Three rows for each method, SimCLR among them: it shows how far chance alone moves a ratio."""
    sizes = SMALL if small else FULL
    baseline = whole(BASELINE, sizes, device)
    knows_memory = device.type == "cuda" or MEMORY.exists()
    memory = _megabytes(BASELINE, sizes, device) if knows_memory else None
    found = []
    for name in GROUPS["method"]:
        described = _describe(name, sizes)
        taken = rotate(
            (whole(name, sizes, device), baseline, loss(name, sizes, device)), repeats, turns=TURNS, device=device
        )
        steps = [(mine, simclr) for mine, simclr, _ in taken]
        losses = [(1000 * alone / TURNS, 1000 * simclr / TURNS) for _, simclr, alone in taken]
        found += [
            Measurement(
                benchmark="methods",
                case=f"step, {described}",
                ours=name,
                baseline="SimCLR, the same sizes",
                unit="images/s",
                pairs=rates(steps, TURNS * sizes.batch_size),
                meaning="times SimCLR's time",
                inverse=True,
                target=Target(TARGETS[name], at_least=False) if name in TARGETS else None,
            ),
            Measurement(
                benchmark="methods",
                case=f"loss, {described}",
                ours=f"{name}: loss and its gradient in float32, on ready embeddings",
                baseline="SimCLR's step",
                unit="ms",
                pairs=losses,
                meaning="share of SimCLR's step",
                target=LOSS,
            ),
        ]
        if memory is not None:
            found.append(
                Measurement(
                    benchmark="methods",
                    case=f"added memory, {described}",
                    ours=name,
                    baseline="SimCLR, the same sizes",
                    unit="MB",
                    pairs=[(_megabytes(name, sizes, device), memory)],
                    meaning="times SimCLR's memory",
                )
            )
    return found


def _describe(name: str, sizes: Sizes) -> str:
    return ", ".join([f"{name}, {sizes}", *(f"{option} {value:,}" for option, value in sizes.of(name).items())])


def whole(name: str, sizes: Sizes, device: torch.device) -> Callable[[], None]:
    """A whole training step on ready views."""
    loop, looks = halfway(name, sizes, device)

    def step() -> None:
        loop.batch = next(looks)
        loop.step()

    return step


def loss(name: str, sizes: Sizes, device: torch.device) -> Callable[[], None]:
    """The loss and its gradient on embeddings that are always the same, ``[batch_size, D]`` for each view."""
    loop, looks = halfway(name, sizes, device)
    method = loop.method
    draw = partial(torch.randn, sizes.batch_size, method.width, generator=torch.Generator().manual_seed(0))
    embeddings, others = ([draw().to(device) for _ in range(method.views.count)] for _ in range(2))

    def step() -> None:
        method.zero_grad()
        student = [z.detach().requires_grad_() for z in embeddings]
        taught = student if method.teacher is None else others
        value, _ = method.collect_and_loss(Step(embeddings, student, taught, next(looks)))
        value.backward()  # type: ignore[no-untyped-call]
        method.collected.clear()  # it waits for the optimiser's step, which does not come

    return step


def halfway(name: str, sizes: Sizes, device: torch.device) -> tuple[TrainingLoop, Iterator[Batch]]:
    """The training loop of a run that stands at half its way, and its batches."""
    dataset = synthetic_dataset(sizes.images, channels=3, side=32)
    config = configuration(
        dataset,
        f"method={name}",
        "backbone.stem=cifar",
        f"backbone.width={sizes.width}",
        f"batch_size={sizes.batch_size}",
        *(f"method.{option}={value}" for option, value in sizes.of(name).items()),
        scale="paper",
    )
    (batch,) = (batch.to(device) for batch in batches(pictures(sizes.batch_size, 3, 32), sizes.batch_size))
    method = build.build_method(config, dataset).to(device)
    per_epoch, epochs = sizes.images // sizes.batch_size, config.epochs
    loop = TrainingLoop(
        method,
        [view.to(memory_format=torch.channels_last) for view in method.views(batch)],
        batch,
        precision=devices.resolve_precision(config.trainer.precision, config.trainer.accelerator),
        clip=config.trainer.clip,
        moment=Moment(max_epochs=epochs, current_epoch=epochs // 2, estimated_stepping_batches=epochs * per_epoch),
    )
    method.student_steps = epochs // 2 * per_epoch
    for module in method.modules():
        if isinstance(module, Queue):
            module.pushed = len(module.rows)
    if not isinstance(method, PIC):
        return loop, itertools.repeat(batch)
    looks = come_round(method, batch)
    method.classes.taken.fill_(method.student_steps - per_epoch)
    return loop, looks


def added_memory(name: str, sizes: Sizes, device: torch.device) -> int:
    """Bytes by which memory grows at most while a method is built and takes three steps: the card's, else ours."""
    whole(name, SMALL, device)()  # what libraries keep for themselves is not counted

    def work() -> None:
        step = whole(name, sizes, device)
        for _ in range(STEPS):
            step()

    return growth(work, device)


def _megabytes(name: str, sizes: Sizes, device: torch.device) -> float:
    # In a new process: memory that earlier work has freed would be used again and hide the growth. All are forked from
    # one that has only imported this file, which takes longer than a step.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context) as pool:
        return max(pool.submit(added_memory, name, sizes, device).result(), 1) / 1e6
