"""Two ranks get the gradient that one process gets on the global batch."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from forked import in_ranks
from ssl_bench import distributed
from ssl_bench.batch import Batch, Place
from ssl_bench.config.compose import compose
from ssl_bench.errors import UserError
from ssl_bench.methods.base import Method, Step
from ssl_bench.training.build import build

N, D = 12, 32  # D as at the smallest scale, since queues have it
LABELS = torch.tensor([-1, -1, -1, 3, -1, 5, 6, 7, 8, 9, 0, 1])  # the first rank has the fewest
METHODS = (
    "simclr",
    "simclr method.objective=logistic method.normalize=false",
    "simclr method.objective=logistic_semi_hard",
    "simclr method.objective=margin",
    "simclr method.objective=margin_semi_hard",
    "byol",
    "clbo",
    "clbo method.negatives=other_view",
    "clbo method.objective=barlow_twins",
    "clbo method.objective=vicreg",
    "barlow_twins",
    "vicreg",
    "moco",
    "swav",
    "supervised",
)


def embeddings(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(N, D, generator=generator, dtype=torch.float64) for _ in range(2)]


def gradients(method: Method, first: int, rows: int) -> tuple[Tensor, list[Tensor]]:
    """Loss of the rows [first, first + rows) of the global batch, and its gradient for the student's rows."""
    student = [z[first : first + rows].clone().requires_grad_() for z in embeddings(0)]
    target = student if method.teacher is None else [z[first : first + rows] for z in embeddings(1)]
    images, index = torch.zeros(rows, 1, 8, 8, dtype=torch.uint8), torch.zeros(rows, dtype=torch.int64)
    labels = LABELS[first : first + rows]
    batch = Batch(images, labels, index, Place(seed=0, epoch=0, step=0, first=first, size=N))
    loss, _ = method.collect_and_loss(Step(student, student, target, batch))
    return loss.detach(), list(torch.autograd.grad(loss, student))


def method_of(words: str) -> Method:
    return build(compose(["scale=smoke", *f"method={words}".split()]))[0].double()


def rank_program(rank: int, world: int, folder: str) -> None:
    warnings.simplefilter("error", FutureWarning)  # of names that torch gives up
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    rows = N // world
    found = {words: gradients(method_of(words), rank * rows, rows) for words in METHODS}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_have_the_loss_and_gradient_of_one_process(tmp_path: Path, world: int) -> None:
    in_ranks(rank_program, world, os.fspath(tmp_path), world=world)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    for words in METHODS:
        loss, expected = gradients(method_of(words), 0, N)
        torch.testing.assert_close(torch.stack([found[words][0] for found in ranks]).mean(), loss)
        for view in (0, 1):
            # Parameters get the mean over ranks of what flows through each rank's own rows.
            together = torch.cat([found[words][1][view] for found in ranks]) / world
            torch.testing.assert_close(together, expected[view], msg=lambda text, words=words: f"{words}: {text}")


def refuse() -> None:
    raise UserError(f"rank {distributed.rank()} refuses")


def outcome(act: Callable[[], Any]) -> Any:
    """What ``act`` returns, or the sentence of its UserError."""
    try:
        return act()
    except UserError as error:
        return str(error)


def slowly(rank: int) -> int:
    """What takes the last rank longer than a collective may."""
    collectives: Any = dist.group.WORLD._get_backend(torch.device("cpu"))  # type: ignore[union-attr]
    collectives._set_default_timeout(timedelta(seconds=1))
    found = distributed.on_every_rank(lambda: time.sleep(3 * (rank == 2)) or rank)
    collectives._set_default_timeout(timedelta(seconds=300))
    return found


def agreement_program(rank: int, world: int, folder: str) -> None:
    warnings.simplefilter("error", FutureWarning)  # functions that torch renames
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    module = torch.nn.BatchNorm1d(2)
    module.running_mean.fill_(rank + 1.0)  # type: ignore[union-attr]
    distributed.share_buffers(module)
    found = {
        "everywhere": outcome(lambda: distributed.on_every_rank(lambda: rank)),
        "one refuses": outcome(lambda: distributed.on_every_rank(refuse if rank == 1 else lambda: None)),
        "everywhere, slowly": slowly(rank),
        "first": outcome(lambda: distributed.on_rank_zero(lambda: f"rank {rank}")),
        "first refuses": outcome(lambda: distributed.on_rank_zero(refuse)),
        "agreed": outcome(lambda: distributed.agreed("word", "everything")),
        "not agreed": outcome(lambda: distributed.agreed(f"word {rank}", "words")),
        "largest": distributed.largest(rank * 7),
        "mean": distributed.mean_over_ranks(torch.tensor(float(rank))).item(),
        "uneven": distributed.gather_uneven(torch.full((rank, 1), rank)).tolist(),
        "buffers": module.running_mean.tolist(),  # type: ignore[union-attr, operator]
    }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_agree(tmp_path: Path) -> None:
    world = 3
    in_ranks(agreement_program, world, os.fspath(tmp_path), world=world)
    for rank in range(world):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == {
            "everywhere": rank,
            "one refuses": "rank 1 refuses",
            "everywhere, slowly": rank,
            "first": "rank 0",
            "first refuses": "rank 0 refuses",
            "agreed": "word",
            "not agreed": "the processes of this run differ in words: start all with the same options and files.",
            "largest": 14,
            "mean": 1.0,
            "uneven": [[1], [2], [2]],
            "buffers": [1.0, 1.0],
        }


def test_a_process_alone_agrees_with_itself() -> None:
    assert distributed.of_every_rank({"a": 1}) == [{"a": 1}]
    assert distributed.on_every_rank(lambda: 3) == distributed.on_rank_zero(lambda: 3) == distributed.largest(3) == 3
    rows = torch.ones(2, 1)
    assert distributed.gather_uneven(rows) is rows


def leaving_program(rank: int, world: int, folder: str) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ["SSL_BENCH_MEETING"] = f"{folder}/meeting"
    try:
        with distributed.joined(devices=world, nodes=1, cuda=False, timeout=5):
            distributed.largest(1)
            if rank == 1:  # alive, but silent until the other has given up
                given_up = time.monotonic() + 60
                while not Path(folder, "lost").exists() and time.monotonic() < given_up:
                    time.sleep(0.05)
                os._exit(0)
            distributed.largest(2)
    except distributed.RankLost as error:
        Path(folder, "lost").write_text(str(error))


@pytest.mark.slow
def test_a_silent_rank_is_an_error_after_the_timeout(tmp_path: Path) -> None:
    in_ranks(leaving_program, 2, os.fspath(tmp_path), world=2)
    sentence = (tmp_path / "lost").read_text()
    assert "did not answer within trainer.timeout=5 seconds" in sentence
    assert "\n" not in sentence


NCCL = "NCCL error in: ProcessGroupNCCL.cpp:3690, {}, NCCL version 2.27.3\n{}\nLast error:\n{}"


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (
            NCCL.format(
                "unhandled cuda error", "ncclUnhandledCudaError: Call to CUDA function failed.", "Cuda failure 2"
            ),
            "ncclUnhandledCudaError: Cuda failure 2",
        ),
        (
            NCCL.format(
                "invalid usage", "ncclInvalidUsage: This usually reflects …", "Duplicate GPU detected : rank 1"
            ),
            "ncclInvalidUsage: Duplicate GPU detected : rank 1",
        ),
        ("NCCL error: ncclSystemError: System call failed or device error.", "ncclSystemError"),
        ("Distributed package doesn't have NCCL built in", "this PyTorch was built without it"),
        (NCCL.format("remote process exited", "ncclRemoteError: A call failed …", "socket closed"), None),
        ("[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)", None),
    ],
)
def test_what_nccl_says_is_shown_and_only_what_happened_to_another_rank_is_a_loss(
    message: str, part: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as raised, distributed.joined(devices=2, nodes=1, cuda=False, timeout=5):
        raise RuntimeError(message)
    assert isinstance(raised.value, distributed.RankLost) == (part is None)
    if part is not None:
        assert f"NCCL, by which GPUs exchange gradients, failed ({part});" in str(raised.value)


@pytest.mark.parametrize("end", [None, RuntimeError("a bug"), UserError("no room."), KeyboardInterrupt()])
def test_only_a_rank_that_ends_well_waits_for_the_others_at_its_exit(
    end: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_exit: list[object] = []
    monkeypatch.setattr(distributed.atexit, "register", at_exit.append)
    monkeypatch.setattr(distributed.atexit, "unregister", lambda function: at_exit.clear())
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    swallowed = contextlib.suppress(RuntimeError, UserError, KeyboardInterrupt)
    with swallowed, distributed.joined(devices=2, nodes=1, cuda=False, timeout=5):
        assert at_exit == [distributed._leave]  # of a run after one that failed, too
        if end is not None:
            raise end
    assert at_exit == ([distributed._leave] if end is None else [])


@pytest.mark.parametrize(
    "message",
    ["Wait timeout", "Timed out waiting 1800000ms", "Connection closed by peer", "[gloo/transport] read: reset"],
)
def test_errors_of_a_rank_that_is_gone_are_known_as_such(message: str) -> None:
    assert distributed._is_broken_line(RuntimeError(message))
    assert not distributed._is_broken_line(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def dropout_program(rank: int, folder: str) -> None:
    """Every rank draws masks of its own, and goes on with them after its checkpoint is loaded."""
    from types import SimpleNamespace

    from ssl_bench.callbacks.checkpointer import Checkpointer
    from ssl_bench.training.run import seed_dropout

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "SSL_BENCH_MEETING": f"{folder}/meeting"}
    nobody: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    checkpointer = Checkpointer(Path(folder), fingerprint="a", every_seconds=1.0)
    with distributed.joined(devices=2, nodes=1, cuda=False, timeout=60):
        seed_dropout(7)
        kept: dict[str, Any] = {"global_step": 3}
        checkpointer.on_save_checkpoint(nobody, nobody, kept)
        drawn = torch.rand(4)
        checkpointer.on_load_checkpoint(nobody, nobody, kept)
        assert torch.equal(torch.rand(4), drawn)
        both = distributed.gather(drawn[None])
        assert not torch.equal(both[0], both[1])
        kept["rng"] = kept["rng"][:1]  # of a run on one device
        checkpointer.on_load_checkpoint(nobody, nobody, kept)
        both = distributed.gather(torch.rand(1, 4))
        assert not torch.equal(both[0], both[1])


def test_ranks_draw_dropout_of_their_own_and_go_on_with_it(tmp_path: Path) -> None:
    in_ranks(dropout_program, os.fspath(tmp_path), world=2)
