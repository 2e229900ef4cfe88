"""Exact k-nearest neighbours by cosine similarity against scikit-learn's brute force."""

from __future__ import annotations

import functools
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.features import CLASSES, clustered, gaussian
from benchmarks.measurement import HOST, Measurement, Target, alternate
from ssl_bench.config.compose import compose
from ssl_bench.evaluation import knn

OURS = "float32, exact"
BASELINE = "scikit-learn, brute force, cosine"
TEMPERATURE = 0.1
WIDTH = 512
MEMORY = Path("/proc/self/smaps_rollup")  # of Linux
SAMPLE_SECONDS = 0.005


class Task(NamedTuple):
    """Which features, and how many."""

    structure: str
    bank: int
    queries: int
    k: int

    def features(self) -> tuple[Tensor, Tensor, Tensor]:
        """Bank ``[M, F]``, its labels ``[M]``, queries ``[Q, F]``."""
        make = gaussian if self.structure == "Gaussian" else clustered
        bank, labels = make(self.bank, WIDTH, seed=1)
        queries, _ = make(self.queries, WIDTH, seed=2)
        return bank, labels, queries

    def __str__(self) -> str:
        return f"{self.structure}, {self.bank:,} × {WIDTH}, {self.queries:,} queries, k = {self.k}"


def measure(repeats: int, *, small: bool, device: torch.device) -> list[Measurement]:
    """Both find the neighbours and let them vote; memory is what anonymous pages grow by, in a process of its own."""
    sizes = (1000, 100, 20) if small else (50_000, 10_000, 200)
    tasks = [Task(structure, *sizes) for structure in ("clustered", "Gaussian")]
    found = []
    for task in tasks:
        bank, labels, queries = task.features()
        pairs = alternate(
            partial(ours, bank.to(device), labels.to(device), queries.to(device), task.k),
            partial(theirs, bank, labels, queries, task.k),
            repeats,
            turns=1,
            device=device,
        )
        found.append(
            Measurement(
                benchmark="knn",
                ours=OURS,
                baseline=BASELINE,
                case=str(task),
                unit="s",
                pairs=pairs,
                meaning="times as fast as the baseline",
                inverse=True,
                target=Target(3.0, at_least=True),
            )
        )
    if MEMORY.exists() and device.type == "cpu":
        found.append(
            Measurement(
                benchmark="knn",
                ours=OURS,
                baseline=BASELINE,
                case=f"added memory, {tasks[0]}",
                unit="MB",
                pairs=[(_megabytes(ours, tasks[0]), _megabytes(theirs, tasks[0]))],
                meaning="",
                target=Target(500, at_least=False, on="value"),
            )
        )
    return found


def ours(bank: Tensor, labels: Tensor, queries: Tensor, k: int) -> Tensor:
    """Classes ``[Q]`` as the program computes them."""
    return knn.predict(bank, labels, queries, k=k, temperature=TEMPERATURE, classes=CLASSES, budget=_budget())


@functools.cache  # it takes longer than a GPU's search
def _budget() -> int:
    return compose().evaluation.memory


def theirs(bank: Tensor, labels: Tensor, queries: Tensor, k: int) -> Tensor:
    """Classes ``[Q]`` by scikit-learn's neighbours and the same vote."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(bank.numpy())
    distance, rows = map(torch.from_numpy, search.kneighbors(queries.numpy()))
    weight = (-distance / TEMPERATURE).exp().float()  # similarity is 1 − distance; the 1 changes no vote
    return torch.zeros(len(queries), CLASSES).scatter_add_(1, labels[rows], weight).argmax(1)


Way = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def added_memory(way: Way, task: Task) -> int:
    """Bytes by which this process's anonymous memory grows at most."""
    bank, labels, queries = task.features()
    way(bank[: task.k], labels[: task.k], queries[:1], task.k)  # what libraries keep for themselves is not counted
    return growth(partial(way, bank, labels, queries, task.k))


def growth(work: Callable[[], object], device: torch.device = HOST) -> int:
    """Bytes by which memory grows at most during ``work``: the CUDA device's, else this process's anonymous memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        began = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - began
    before, peak, over = anonymous_memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(SAMPLE_SECONDS):
            peak = max(peak, anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answer = work()  # kept until the last look
        peak = max(peak, anonymous_memory())
        del answer
    finally:
        over.set()
        watcher.join()
    return peak - before


def anonymous_memory() -> int:
    """Bytes of this process that no file stands behind."""
    line = next(line for line in MEMORY.read_text().splitlines() if line.startswith("Anonymous:"))
    return 1024 * int(line.split()[1])


def _megabytes(way: Way, task: Task) -> float:
    # In a new process: memory that earlier work has freed would be used again and hide the growth.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(added_memory, way, task).result() / 1e6
