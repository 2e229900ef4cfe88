"""Sections of gpu.sh that show how fast it is; ``tell`` takes a finding, ``until`` is when to stop."""

from __future__ import annotations

import contextlib
import io
import os
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import methods
from benchmarks.knn import CLASSES, Task
from benchmarks.knn import TEMPERATURE as T
from benchmarks.synthetic import batches, configuration, pictures, synthetic_dataset
from gpu_program import (
    ACCELERATOR,
    CUDA,
    DEVICE,
    METHODS,
    NEVER,
    SIZES,
    STEPS,
    Tell,
    configured,
    per_call,
    program,
    rate,
)
from ssl_bench import devices
from ssl_bench.augment.views import Views
from ssl_bench.batch import Batch
from ssl_bench.config.compose import compose
from ssl_bench.data import places
from ssl_bench.data.facts import FACTS
from ssl_bench.evaluation import knn
from ssl_bench.training import build, run

SHARE = 0.95  # of the speed of a method's own step that the program is to have
SAME = 0.999  # of images whose nearest neighbours vote alike, whatever the rounding
SCORING = 90  # seconds that the final table may take
RECIPE = (
    "method=simclr",
    "optimizer.lr=0.03",
    "optimizer.scale_lr_with_batch=true",
    "method.projector.hidden=1024",
    "augment.groups.global.crop_scale=[0.2,1]",
    "evaluation.protocols=[knn1,knn200,linear]",
    "evaluation.curves=[knn1]",
    f"monitor_every={NEVER}",
    f"eval_every={NEVER}",
    f"trainer.accelerator={ACCELERATOR}",
    "trainer.progress=false",
)


def machine(tell: Tell, until: float) -> None:
    """The card, and what it can do at most."""
    tell("commit", os.environ.get("COMMIT", "unknown"))
    tell("torch", torch.__version__)
    if not CUDA:
        tell("device", "CPU: a trial of the script, whose figures mean nothing")
        return
    card = torch.cuda.get_device_properties(DEVICE)
    tell(
        "device", f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, {os.cpu_count()} cores"
    )
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    tell("bf16 product, TFLOP/s", 2 * 8192**3 / per_call(lambda: a @ a, 20) / 1e12)
    b, c = (torch.empty(2**30, dtype=torch.uint8, device=DEVICE) for _ in range(2))
    tell("copy on the device, GB/s read and written", 2 * 2**30 / per_call(lambda: c.copy_(b), 20) / 1e9)
    x = torch.zeros(64, device=DEVICE)
    tell("a launch, us", 1e6 * per_call(lambda: x.add_(1), 2000))


def speed(tell: Tell, until: float) -> None:
    """Images/s of the program beside the method's own step on ready views, and what waits for the device in a step."""
    for name in METHODS:
        if time.monotonic() > until - 15:
            tell("stopped before", name)
            return
        step = SIZES.batch_size / per_call(methods.whole(name, SIZES, DEVICE), STEPS, warm=5 if CUDA else 1)
        watched = program(*configured(name))
        row = {"program": rate(watched), "step": step, "share": rate(watched) / step}
        row |= {"holds": row["share"] >= SHARE} if CUDA else {}
        tell(name, {**row, "waits in half an epoch": dict(watched.waits)} if CUDA else row)


def views(tell: Tell, until: float) -> None:
    """Two views of a batch by kernels and by plain operations, ms, and their largest difference in grey levels."""
    for side in (32, 96, 224) if CUDA else (16,):
        count = 256 if CUDA else 4
        dataset = synthetic_dataset(count, channels=3, side=side)
        drawn = build.build_views(configuration(dataset, "method=simclr", scale="paper"), dataset).to(DEVICE)
        (batch,) = (batch.to(DEVICE) for batch in batches(pictures(count, 3, side), count))
        row: dict[str, Any] = {}
        looks: dict[str, list[Tensor]] = {}
        for way in ("kernels", "operations"):
            drawn.use_kernels = way == "kernels"
            looks[way] = drawn(batch)
            row[way] = 1e3 * per_call(partial(drawn, batch), 20 if CUDA else 1)
            if way == "kernels":
                row["kernels are there"] = CUDA and drawn.use_kernels
        if row["kernels are there"]:
            row |= _alone(drawn, batch)
        apart = [(a.float() - b).abs().mul(255 * drawn.std) for a, b in zip(*looks.values(), strict=True)]
        row["largest difference"] = max(float(d.max()) for d in apart)
        row["holds"] = row["kernels are there"] == CUDA and row["largest difference"] <= 2
        tell(f"{side} px, {count} images", row)


def _alone(drawn: Views, batch: Batch) -> dict[str, float]:
    """What the host draws for a batch and what the kernels do with it for autocast, each by itself, ms."""
    from ssl_bench.augment import fused  # Triton is not everywhere

    tables = drawn.tables(batch, 0).to(DEVICE)
    draw = partial(fused.draw, batch.images, tables, drawn.groups[0], drawn.mean, drawn.std, torch.bfloat16)
    draws = per_call(partial(drawn.tables, batch, 0), 20)
    return {"draws on the host": 1e3 * draws, "kernels alone, in bfloat16": 1e3 * per_call(draw, 50)}


def neighbours(tell: Tell, until: float) -> None:
    """Exact nearest neighbours beside a product, topk and a vote in plain torch, ms."""
    for k in (1, 200):
        task = Task("clustered", *((50_000, 10_000) if CUDA else (500, 50)), k)
        bank, labels, queries = (part.to(DEVICE) for part in task.features())

        def plain(bank: Tensor = bank, labels: Tensor = labels, queries: Tensor = queries, k: int = k) -> Tensor:
            found = []
            for part in F.normalize(queries).split(2048):
                similarity, rows = (part @ F.normalize(bank).T).topk(k)
                votes = torch.zeros(len(part), CLASSES, device=DEVICE)
                weight = (similarity / T).exp()
                found.append(votes.scatter_add_(1, labels[rows], weight).argmax(1))
            return torch.cat(found)

        ours = partial(knn.predict, bank, labels, queries, k=k, temperature=T, classes=CLASSES, budget=2**28)
        same = float((ours() == plain()).float().mean())
        calls = 10 if CUDA else 1
        row = {"ours": 1e3 * per_call(ours, calls), "plain": 1e3 * per_call(plain, calls), "same": same}
        tell(str(task), {**row, "holds": same >= SAME})


def determinism(tell: Tell, until: float) -> None:
    """What trainer.deterministic costs, and whether a run repeats bit for bit with it and without."""
    for wanted in ("false", "true"):
        runs = [program(*configured("byol", f"trainer.deterministic={wanted}"), epochs=3) for _ in range(2)]
        row = {"images/s": max(map(rate, runs)), "same bits twice": runs[0].digest == runs[1].digest}
        row |= {"holds": row["same bits twice"]} if wanted == "true" else {}
        tell(f"trainer.deterministic={wanted}", row)


def paths(tell: Tell, until: float) -> None:
    """What CUDA alone has: images brought batch by batch by a second stream, fp16 with a scaler, NCCL."""
    ways = {
        way: program(*configured("simclr", "trainer.deterministic=true", f"dataset.resident={way}"), epochs=2)
        for way in ("true", "false")
    }
    brought = {way: rate(watched) for way, watched in ways.items()}
    tell("images/s, resident or brought", {**brought, "holds": ways["true"].digest == ways["false"].digest})
    if not CUDA:
        return
    tell("clbo in 16-mixed, images/s", rate(program(*configured("clbo", "trainer.precision=16-mixed"))))
    with TemporaryDirectory() as folder:
        nccl = torch.distributed
        nccl.init_process_group("cpu:gloo,cuda:nccl", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        ones = torch.ones(3, device=DEVICE)
        nccl.all_reduce(ones)
        tell("NCCL, a group of one", {"holds": ones.tolist() == [1.0, 1.0, 1.0]})
        nccl.destroy_process_group()


def compile(tell: Tell, until: float) -> None:
    """Images/s of the program with its networks compiled and without, and how long compiling takes."""
    if not CUDA:
        devices.BACKEND = "aot_eager"  # as all at toy size: without a compiler of C++
    for wanted in ("false", "true"):
        watched = program(*configured("simclr", f"trainer.compile={wanted}"))
        tell(f"trainer.compile={wanted}", {"images/s": rate(watched), "first epoch, s": watched.seconds[0]})


def training(tell: Tell, until: float) -> None:
    """SimCLR on CIFAR-10 in the recipe of dkobak/simclr-cifar10: 100 epochs at batch 512, or as many as time allows."""
    data = Path(os.environ["DATA"])
    if CUDA and not places.found("cifar10", data):
        tell("LEFT OUT", f"no CIFAR-10 in {data}")
        return
    per_second = rate(program(*configured("simclr"), epochs=3))
    epochs = min(100, int((until - time.monotonic() - SCORING) * per_second / FACTS["cifar10"].train))
    overrides = ["dataset=cifar10", "scale=paper", "batch_size=512", f"epochs={epochs}"]
    if not CUDA:
        overrides = ["dataset=digits", "scale=smoke"]
    elif epochs < 1:
        tell("LEFT OUT", f"no time for an epoch at {per_second:.0f} images/s")
        return
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        record = run.run(compose([*RECIPE, *overrides, f"data_dir={data}", f"runs_dir={folder}"]))
    tell("command", " ".join([*RECIPE, *overrides]))
    tell("epochs", record.config["epochs"])
    tell("expected after 100 epochs", "k-NN about 83.2, linear about 85.6 (dkobak/simclr-cifar10)")
    tell("results", record.results)
    tell("images/s", record.images_per_second)
    tell("seconds", {"training": record.train_seconds, "all": record.session_seconds})
