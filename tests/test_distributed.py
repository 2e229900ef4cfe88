"""Two ranks get the gradient that one process gets on the global batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from ssl_bench.batch import Batch, Place
from ssl_bench.build import build
from ssl_bench.config import compose
from ssl_bench.methods.base import Method

N, D = 12, 6
METHODS = ("simclr", "byol", "clbo", "clbo method.negatives=other_view")


def embeddings(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(N, D, generator=generator, dtype=torch.float64) for _ in range(2)]


def gradients(method: Method, first: int, rows: int) -> tuple[Tensor, list[Tensor]]:
    """Loss of the rows [first, first + rows) of the global batch, and its gradient for the student's rows."""
    student = [z[first : first + rows].clone().requires_grad_() for z in embeddings(0)]
    target = student if method.teacher is None else [z[first : first + rows] for z in embeddings(1)]
    images, labels = torch.zeros(rows, 1, 8, 8, dtype=torch.uint8), torch.zeros(rows, dtype=torch.int64)
    batch = Batch(images, labels, labels, Place(seed=0, epoch=0, step=0, first=first, size=N))
    loss = method.loss(student, target, batch)
    return loss.detach(), list(torch.autograd.grad(loss, student))


def method_of(words: str) -> Method:
    return build(compose(["scale=smoke", *f"method={words}".split()]))[0]


def rank_program(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    rows = N // world
    found = {words: gradients(method_of(words), rank * rows, rows) for words in METHODS}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_have_the_loss_and_gradient_of_one_process(tmp_path: Path, world: int) -> None:
    mp.spawn(rank_program, args=(world, os.fspath(tmp_path)), nprocs=world)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    for words in METHODS:
        loss, expected = gradients(method_of(words), 0, N)
        torch.testing.assert_close(torch.stack([found[words][0] for found in ranks]).mean(), loss)
        for view in (0, 1):
            # Parameters get the mean over ranks of what flows through each rank's own rows.
            together = torch.cat([found[words][1][view] for found in ranks]) / world
            torch.testing.assert_close(together, expected[view], msg=lambda text, words=words: f"{words}: {text}")
