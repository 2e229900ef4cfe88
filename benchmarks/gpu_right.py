"""Sections of gpu.sh that show whether results are right; ``tell`` takes a finding, ``until`` is when to stop."""

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
from torch.multiprocessing.spawn import spawn

from gpu_program import ACCELERATOR, CUDA, DEVICE, METHODS, Tell, per_call
from ssl_bench import distributed
from ssl_bench.config.compose import compose
from ssl_bench.nn.norm import SyncBatchNorm
from ssl_bench.training import certificate, run


def correctness(tell: Tell, until: float) -> None:
    """Every method beside the CPU: losses, gradients, state; largest relative differences."""
    for name in METHODS:
        if time.monotonic() > until - 10:
            tell("stopped before", name)
            return
        found = certificate.beside_cpu(name, DEVICE.type)
        holds = all(figure <= certificate.TOLERANCE[kind] for kind, figure in found.items())
        tell(name, {**found, "holds": holds})


def demo(tell: Tell, until: float) -> None:
    """The program as a newcomer runs it, at scale=demo, on the device and on the CPU."""
    for place in dict.fromkeys([ACCELERATOR, "cpu"]):
        began = time.perf_counter()
        overrides = ["scale=demo"] if CUDA else ["scale=smoke", "epochs=1"]
        with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            record = run.run(
                compose([*overrides, f"trainer.accelerator={place}", "trainer.progress=false", f"runs_dir={folder}"])
            )
        tell(place, {"seconds": round(time.perf_counter() - began, 1), **record.results})


def resume(tell: Tell, until: float) -> None:
    """Whether a run that resumes in mid-epoch ends bit for bit as the uninterrupted one, every method."""
    with TemporaryDirectory() as folder:
        for name in METHODS:
            if time.monotonic() > until - 5:
                tell("stopped before", name)
                return
            tell(name, certificate.resumes(name, Path(folder), DEVICE.type))


def ranks(tell: Tell, until: float) -> None:
    """Two processes beside one: by NCCL on two cards, by gloo on one; largest relative differences."""
    own = torch.cuda.device_count() > 1
    tell("processes", "two, a card each (NCCL)" if CUDA and own else "two on one device (gloo)")
    names = METHODS if CUDA else METHODS[:1]
    with TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        failed = certificate.train_in_ranks(names, 2, folder, DEVICE.type)
        for name in names:
            if name in failed:
                tell(name, {"holds": False, "failure": failed[name]})
                continue
            saved = [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(2)]
            row: dict[str, Any] = {}
            for norms in certificate.NORMS:
                one = certificate.train(name, norms=norms, device=DEVICE.type)
                found = certificate.compare(one, [rank[norms] for rank in saved])
                row |= {f"{norms} {key}": found[key] for key in ("loss", "gradient", "state")}
                row["replicas"] = found["replicas"] and row.get("replicas", True)
            differences = [figure for key, figure in row.items() if key != "replicas"]
            tell(name, {**row, "holds": row["replicas"] and max(differences) <= certificate.TOLERANCE["float64"]})


def sync_batchnorm(tell: Tell, until: float) -> None:
    """Our layer and torch's on two ranks beside BatchNorm on the rows of both; relative differences."""
    for name in LAYERS if CUDA else ["ours"]:  # torch has its own for CUDA alone
        with TemporaryDirectory() as folder:
            spawn(_normalise, args=(folder, DEVICE.type, name), nprocs=2)
            found = torch.tensor([torch.load(f"{folder}/{rank}.pt") for rank in (0, 1)])
            difference, seconds = found.amax(0).tolist()  # of both ranks
        figures = {"largest difference": difference, "forward and backward by gloo, ms": 1e3 * seconds}
        tell(name, {**figures, "holds": difference < 1e-5})


LAYERS: dict[str, type[torch.nn.Module]] = {"ours": SyncBatchNorm, "torch": torch.nn.SyncBatchNorm}


def _normalise(rank: int, folder: str, device: str, name: str) -> None:
    """A rank: its rows through the layer; BatchNorm sees those of both ranks."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0", LOCAL_WORLD_SIZE="2")
    os.environ["SSL_BENCH_MEETING"] = f"{folder}/meeting"
    torch.manual_seed(0)
    whole, weights = torch.randn(2, 16, 64, 8, 8).to(device).unbind()  # the same on both ranks
    mine = slice(8 * rank, 8 * rank + 8)

    def passed(layer: torch.nn.Module, rows: slice) -> list[Tensor]:
        """Output, gradient of the input and running statistics."""
        x = whole[rows].clone().requires_grad_()
        y = layer(x)
        (y * weights[rows]).sum().backward()
        assert x.grad is not None
        return [y.detach(), x.grad, *(buffer.clone() for buffer in layer.buffers() if buffer.is_floating_point())]

    y, gradient, *statistics = passed(torch.nn.BatchNorm2d(64).to(device), slice(None))
    layer = LAYERS[name](64).to(device)
    with distributed.joined(devices=2, nodes=1, cuda=False, timeout=60):
        pairs = zip([y[mine], gradient[mine], *statistics], passed(layer, mine), strict=True)
        difference = max(float((a - b).norm() / a.norm()) for a, b in pairs)
        seconds = per_call(partial(passed, layer, mine), 20)
    torch.save((difference, seconds), f"{folder}/{rank}.pt")
