"""The device of a run: which one, in which precision, whether it repeats bit for bit, and what its failures mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ssl_bench.conditions import require_precision
from ssl_bench.errors import TRY_AGAIN, UserError

# Errors of CUDA that are not the card's: they return however often the run is started again.
NOT_THE_CARDS = (
    r"out of memory|device-side assert|no kernel image|invalid (argument|configuration|device|resource)|not.supported"
)
# A memory that is full, where the error has no class of its own: the CPU's allocator, pinned memory, libraries.
FULL = r"DefaultCPUAllocator|(CUDA|cuda runtime) error[^\n]*: out of memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED"


class GPUError(UserError):
    """The card failed while it was at work; the same command may succeed, and a run resumes."""

    status = TRY_AGAIN


def device_type(wanted: str) -> str:
    """``cpu`` or ``cuda``, as a run's name has it; runs for another machine may be named where there is no GPU."""
    return "cuda" if wanted in ("gpu", "cuda") or (wanted == "auto" and torch.cuda.is_available()) else "cpu"


def resolve_device(wanted: str, option: str = "trainer.accelerator") -> torch.device:
    """The device of a process that works alone: the CPU, or the first card that it sees.

    Raises:
        UserError: ``option``, whose value is ``wanted``, asks for a GPU, and PyTorch finds none.
    """
    if device_type(wanted) == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"{option}={wanted}, but PyTorch finds no CUDA device: use {option}=cpu.")
        return torch.device("cuda", 0)
    return torch.device("cpu" if wanted == "auto" else wanted)


def resolve_precision(wanted: str, accelerator: str) -> str:
    """``auto`` as bf16-mixed where the device computes faster in it, else 32-true."""
    require_precision(wanted, device_type(accelerator))
    if wanted != "auto":
        return wanted
    if resolve_device(accelerator).type == "cuda":
        # Cards without bfloat16 emulate it, which is slower than float32.
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if has_fast_bfloat16() else "32-true"


def has_fast_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; emulated it is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


BACKEND = "inductor"  # of torch.compile


def why_not_compiled(device: torch.device) -> str | None:
    """The reason why torch.compile does not work on ``device``; None where it does. Takes seconds."""
    try:
        torch.compile(torch.square, backend=BACKEND)(torch.ones(8, device=device))
    except Exception as error:  # of many classes: what is missing shows up within the backend
        cause = getattr(error, "inner_exception", error)
        return next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    finally:
        torch.compiler.reset()
    return None


def device_name(device: torch.device) -> str:
    """The card's name, or the processor's kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


@contextmanager
def threads(wanted: int | None) -> Iterator[None]:
    """Let PyTorch compute with so many CPU threads while this lasts; None: as it was."""
    before = torch.get_num_threads()
    if wanted is not None:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Let the same computation give the same bits on the same device while this lasts; if not ``wanted``, as it was.

    An operation that cannot is an error there (torch.use_deterministic_algorithms).
    """
    # cuBLAS reads it when its first handle is made, be it of an earlier run, and repeats with one of these alone.
    workspace = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if not wanted:
        yield
        return
    if workspace not in (":4096:8", ":16:8"):
        raise UserError(
            f"CUBLAS_WORKSPACE_CONFIG={workspace} does not repeat bit for bit: unset it, or set "
            "trainer.deterministic=false."
        )
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    before_cudnn = cudnn.deterministic, cudnn.benchmark
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    # Slow, and nothing here reads such memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        cudnn.deterministic, cudnn.benchmark = before_cudnn


@contextmanager
def within_memory(doing: str, remedy: str) -> Iterator[None]:
    """Raise UserError if ``doing`` needs more memory than the card, or the machine, has, and the ``remedy``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and not re.search(FULL, str(error)):
            raise
        asked = re.search(r"[\d.]+ (?:[KMGT]iB|bytes)", str(error))
        size = f" ({asked[0]} were asked for)" if asked else ""
        raise UserError(f"{doing} takes more memory than there is{size}: {remedy}.") from error


RESUMES = "the last checkpoint is intact and the same command resumes from it"
AGAIN = "run the same command again"


@contextmanager
def failures_named(doing: str, remedy: str, afterwards: str) -> Iterator[None]:
    """Raise UserError as `within_memory` does, or where an operation cannot repeat bit for bit.

    Raise GPUError, which ends with ``afterwards``, where the card failed or was taken away.
    """
    try:
        with within_memory(doing, remedy):
            yield
    except RuntimeError as error:
        once = re.search(r"(\S+) does not have a deterministic implementation", str(error))
        if once:
            raise UserError(
                f"trainer.deterministic=true, but {once[1]} does not repeat bit for bit on this device: set "
                "trainer.deterministic=false."
            ) from error
        reason = _failure(error)
        if reason is None:
            raise
        raise GPUError(f"the GPU failed or was taken away ({reason}); {afterwards}.") from error


def _failure(error: RuntimeError) -> str | None:
    """CUDA's reason why a card failed; None for any other error."""
    found = re.search(r"(?:CUDA|cuDNN|CUBLAS|cuBLAS) error(?: \(\d+\))?: *([^\n]+)", str(error))
    if found is None or re.search(NOT_THE_CARDS, found[0], re.IGNORECASE):
        return None
    return found[1].strip().rstrip(".")[:160]
