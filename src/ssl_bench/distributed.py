"""What ranks exchange: a gather with gradient, and what they agree on. The only importer of torch.distributed.

DistributedDataParallel averages parameter gradients over ranks. A loss that reads rows of other ranks
gets the gradient one process would compute on the global batch when the backward of the gather SUMS
what every rank owes a row; averaging there, or cutting the gradient, would make it too small.

Without a process group every function here does its work for one rank, at no cost.
"""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_bench.conditions import require_cards
from ssl_bench.errors import TRY_AGAIN, UserError

T = TypeVar("T")


class RankLost(UserError):  # noqa: N818 (nothing is wrong here)
    """Another rank ended or does not answer any more: a consequence, whose cause that rank knows."""

    status = TRY_AGAIN


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else 0


@contextmanager
def joined(*, devices: int, nodes: int, cuda: bool, timeout: float) -> Iterator[None]:
    """Be one of ``devices`` · ``nodes`` ranks, as the environment sets which (RANK, WORLD_SIZE, LOCAL_RANK).

    timeout: seconds after which a collective that some rank does not take part in is an error. Raises UserError where
    other processes were started than are asked for, and RankLost when the group breaks while it is needed.
    """
    started = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", devices)) if started > 1 else 1
    if started != devices * nodes or (started > 1 and here != devices):
        raise UserError(
            f"this is one of {started} process(es), {here} of them on this machine, but trainer.devices={devices} and "
            f"trainer.nodes={nodes} want {devices * nodes}: start as many as you ask for."
        )
    if started == 1:
        yield
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        require_cards(devices, torch.cuda.device_count())
        torch.cuda.set_device(local)
    try:
        if not dist.is_initialized():  # the runs of a sweep under torchrun share one group
            meeting = os.environ.get("SSL_BENCH_MEETING")
            dist.init_process_group(
                # What ranks exchange beside gradients lies in the memory of the CPU.
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                init_method=f"file://{meeting}" if meeting else "env://",
                rank=int(os.environ["RANK"]),
                world_size=started,
                timeout=timedelta(seconds=timeout),
            )
        atexit.unregister(_leave)
        atexit.register(_leave)  # an earlier run that failed has taken it away
        yield
    except BaseException as error:
        # Under NCCL to leave the group is to wait for the others, and they may wait for this rank in a collective.
        atexit.unregister(_leave)
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        if (reason := _nccl_failure(error)) is not None:
            raise UserError(
                f"NCCL, by which GPUs exchange gradients, failed ({reason}); NCCL_DEBUG=INFO shows more, and the "
                "last checkpoint is intact."
            ) from error
        if not _is_broken_line(error):
            raise
        reason = re.sub(r"\[[^\]]*\]", " ", str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise RankLost(
            f"another process of this run ended or did not answer within trainer.timeout={timeout:g} seconds "
            f"({' '.join(reason.split())[:160]}); the last checkpoint is intact and the same command resumes from it."
        ) from error


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _nccl_failure(error: Exception) -> str | None:
    """What went wrong on this rank by NCCL's error; None where another is gone, or for any other error."""
    message = str(error)
    if "doesn't have NCCL" in message:
        return "this PyTorch was built without it"
    kind = re.search(r"\bnccl(?!Remote)\w*(?:Error|Usage|Argument)\b", message)
    if kind is None:
        return None
    last = re.search(r"Last error:\s*([^\n]+)", message)
    return f"{kind[0]}: {last[1].strip()}"[:200] if last else kind[0]


def _is_broken_line(error: Exception) -> bool:
    """Whether it is of a rank that is gone; gloo's errors have no class of their own."""
    found = re.search(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|[Tt]imed? ?out|Broken pipe", str(error))
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and found is not None)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        return _all_gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)  # autograd may need its own once more
        dist.all_reduce(gradient)
        first = rank() * ctx.rows
        return gradient[first : first + ctx.rows]


# torch 2.14 gave it another name.
_GATHER: Any = getattr(dist, "all_gather_single", None) or getattr(dist, "all_gather_into_tensor", None)


def _all_gather(rows: Tensor) -> Tensor:
    rows = rows.contiguous()
    gathered = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
    _GATHER(gathered, rows)
    return gathered


def gather(rows: Tensor) -> Tensor:
    """Rows of every rank in rank order, ``[n, ...]`` → ``[N, ...]``; every rank must hold equally many.

    Differentiable: the gradient of a rank's rows is the sum of what all ranks' losses owe them.
    """
    if world_size() == 1:
        return rows
    if rows.requires_grad:
        gathered: Tensor = _Gather.apply(rows)
        return gathered
    return _all_gather(rows)


def _all_reduce(x: Tensor) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def total_over_ranks(x: Tensor) -> Tensor:
    """The sum of every rank's ``x``, the same on all."""
    return x.detach() if world_size() == 1 else _all_reduce(x)


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of every rank's ``x``, the same on all."""
    return total_over_ranks(x) / world_size()


@torch.no_grad()
def gather_uneven(rows: Tensor) -> Tensor:
    """Rows of every rank in rank order, of which each may hold another number or none, ``[n, ...]`` → ``[N, ...]``."""
    if world_size() == 1:
        return rows
    shapes = of_every_rank(tuple(rows.shape))
    most = max(shape[0] for shape in shapes)
    rest = next((shape[1:] for shape in shapes if shape[0]), rows.shape[1:])  # a rank without rows may not know it
    padded = rows.new_zeros(most, *rest)
    if len(rows):
        padded[: len(rows)] = rows
    gathered = _all_gather(padded)
    return torch.cat([gathered[i * most : i * most + shape[0]] for i, shape in enumerate(shapes)])


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Give every rank the floating-point buffers of rank 0."""
    if world_size() > 1:
        for buffer in module.buffers():
            if buffer.is_floating_point():
                whole = buffer.contiguous()
                dist.broadcast(whole, src=0)
                buffer.copy_(whole)


@torch.no_grad()
def share_network(module: nn.Module) -> None:
    """Give every rank the parameters and floating-point buffers of rank 0."""
    share_buffers(module)
    if world_size() > 1:
        for parameter in module.parameters():
            whole = parameter.contiguous()
            dist.broadcast(whole, src=0)
            parameter.copy_(whole)


def largest(number: int) -> int:
    """The largest of every rank's ``number``."""
    if world_size() == 1:
        return number
    shared = torch.tensor(number)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return int(shared)


def of_every_rank(mine: Any, group: Any = None) -> list[Any]:
    """Every rank's ``mine``, in the order of the ranks of ``group``; None: of all."""
    if world_size() == 1:
        return [mine]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, mine, group=group)
    return found


def on_every_rank(act: Callable[[], T]) -> T:
    """What ``act`` returns on this rank, once all have done it; the UserError of the first that failed, on all.

    It may take longer than collectives may, as a download does. A rank that has ended is noticed all the same.
    """
    if world_size() == 1:
        return act()
    patient = dist.new_group(backend="gloo", timeout=timedelta(days=7))
    error: UserError | None = None
    try:
        result = act()
    except UserError as mine:
        error = mine
    found = of_every_rank((str(error), error.status) if error else None, patient)
    dist.destroy_process_group(patient)
    failed = [sentence for sentence in found if sentence is not None]
    if failed:
        raise UserError(*failed[0]) from error
    return result


def on_rank_zero(act: Callable[[], T]) -> T:
    """What ``act``, done by rank 0 alone, returns; on every rank, as is its UserError."""
    if world_size() == 1:
        return act()
    found: list[Any] = [None, None]
    if rank() == 0:
        try:
            found[0] = act()
        except UserError as error:
            found[1] = (str(error), error.status)
    dist.broadcast_object_list(found, src=0)
    if found[1] is not None:
        raise UserError(*found[1])
    result: T = found[0]
    return result


def agreed(text: str, what: str) -> str:
    """``text``, which must be the same on all ranks; else UserError naming ``what`` differs."""
    if len(set(of_every_rank(text))) > 1:
        raise UserError(f"the processes of this run differ in {what}: start all with the same options and files.")
    return text
