"""A GPU made of CPU memory, for tests: what would stop or stall a run on CUDA stops or is counted here.

``torch.device("emulated")`` is torch's PrivateUse1 device with kernels in Python: a tensor there holds one on the CPU
and computes with it, so float32 results are the CPU's, bit for bit. As on CUDA

- operations that mix its tensors with the CPU's raise, but for numbers without dimensions;
- copies from and to the host, values that the host reads and results whose shape depends on values (for which the host
  waits, too) are possible, and `counting` writes them down with the line of the package that asked for them.

`emulation` makes the device known to torch and Lightning; `emulated` turns a configuration into one for it, and the
program runs on it unchanged.

What it cannot show: streams, pinned memory, memory that runs out, autocast's roundings and how long anything takes. An
operation counts as one launch here, however many kernels CUDA makes of it.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.accelerators import Accelerator as LightningAccelerator
from pytorch_lightning.accelerators import AcceleratorRegistry
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing

import ssl_bench
from ssl_bench.config.schema import Config

NAME = "emulated"
PACKAGE = str(Path(ssl_bench.__file__).parent)

COPY, WAITING_COPY, READ, SHAPE, LAUNCH = "copy", "blocking copy", "read", "dynamic shape", "launch"
KINDS = (COPY, WAITING_COPY, READ, SHAPE, LAUNCH)

# What CUDA accepts from two devices: copies, and positions on the CPU, which it copies over and waits for.
MIXES = {"copy_", "_to_copy", "_copy_from", "index", "index_put", "index_put_", "_index_put_impl_"}
# What torch would make of steps that cannot be emulated: an output that is resized.
WHOLE = ("_copy_from", "arange", "eye", "linspace", "randperm")
READS = {"_local_scalar_dense", "equal", "is_nonzero"}
# These read whether the factorisation went well.
CHECKED = {"_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_lstsq", "_linalg_check_errors"}
SHAPES = {"nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
FREE = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "lift_fresh",
    "detach",
    "_unsafe_view",
}


class Counts(Counter[tuple[str, str]]):
    """How often what happened where: by kind and ``file:line operation``."""

    def of(self, kind: str) -> int:
        return sum(number for (found, _), number in self.items() if found == kind)

    def table(self, kind: str, *, per: int = 1) -> str:
        """One line per place, the most frequent first, each with its count divided by ``per``."""
        rows = [(number / per, place) for (found, place), number in self.most_common() if found == kind]
        return "\n".join(f"{number:22.2f}  {place}" for number, place in rows)


_counting: list[Counts] = []


@contextmanager
def counting() -> Iterator[Counts]:
    """Within, write down what the host and the device do to one another."""
    counts = Counts()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting.remove(counts)


def _note(kind: str, operation: str) -> None:
    if _counting:
        key = kind, f"{_place()}  {operation}"
        for counts in _counting:
            counts[key] += 1


def _place() -> str:
    """The innermost line of the package and who called it; else the nearest line outside of torch."""
    frame, outside, inside = sys._getframe(2), "", list[str]()
    while frame is not None and len(inside) < 2:
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "_engine_run_backward":
            return "backward"
        if file.startswith(PACKAGE):
            inside.append(f"{file[len(PACKAGE) + 1 :]}:{frame.f_lineno}")
        if not outside and file != __file__ and "/torch/" not in file:
            outside = f"{'/'.join(Path(file).parts[-3:])}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(inside) or outside


class EmulatedTensor(Tensor):
    """A tensor on the emulated device: shape and strides of ``held``, which lies on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> EmulatedTensor:
        layout = (
            {}
            if held.layout is not torch.strided
            else {"strides": held.stride(), "storage_offset": held.storage_offset()}
        )
        tensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), dtype=held.dtype, layout=held.layout, device=f"{NAME}:0", **layout
        )
        tensor.held = held
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"emulated:{self.held!r}"

    def tolist(self) -> Any:  # torch's own is not for subclasses
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = EmulatedTensor(self.held.clone())
        if isinstance(self, torch.nn.Parameter):
            return torch.nn.Parameter(copied, self.requires_grad)
        return copied.requires_grad_(self.requires_grad)

    def __reduce_ex__(self, protocol: Any) -> Any:  # as torch saves tensors of a device without storage
        arguments = (self.detach().cpu(), self.dtype, str(self.device), self.requires_grad)
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, arguments


def _dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    """Compute on the CPU what CUDA would compute, refuse what it would refuse, count what it would wait for."""
    name = func._schema.name.removeprefix("aten::")
    tensors = list(_tensors((*args, *kwargs.values())))
    here = [tensor for tensor in tensors if isinstance(tensor, EmulatedTensor)]
    if here and name not in MIXES and any(t.dim() and not isinstance(t, EmulatedTensor) for t in tensors):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! ({func})"
        )
    if name in ("copy_", "_copy_from"):
        return _copy(func, name, *args, **kwargs)
    if "index" in name and name in MIXES:
        _look_at_positions(name, *args)
    if here:
        kind = READ if name in READS | CHECKED else SHAPE if name in SHAPES else None
        if name == "repeat_interleave" and kwargs.get("output_size") is None:
            kind = SHAPE
        if kind:
            _note(kind, name)
    asked = kwargs.get("device")
    result_here = torch.device(asked).type == NAME if asked is not None else bool(here)
    if name == "_to_copy" and result_here != bool(here):
        _note(READ if here else _kind_of_copy(kwargs.get("non_blocking", False)), "to")
    elif not (func.is_view or name in FREE):
        _note(LAUNCH, name)
    options = {**kwargs, "device": torch.device("cpu")} if asked is not None else kwargs
    result = func(*_each(_held, args), **{key: _each(_held, value) for key, value in options.items()})
    if not result_here:
        return result
    result = _each(lambda leaf: EmulatedTensor(leaf) if isinstance(leaf, Tensor) else leaf, result)
    if here and (func._schema.is_mutable or func.is_view):
        result = return_and_correct_aliasing(func, args, kwargs, result)
    for tensor in here:
        if tensor.shape != tensor.held.shape:
            raise NotImplementedError(f"{func} resizes its output: give the emulated device a kernel of its own for it")
    return result


def _tensors(arguments: Any) -> Iterator[Tensor]:
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from _tensors(argument)


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_each(change, part) for part in value)
    return change(value)


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, EmulatedTensor) else leaf


def _copy(func: Any, name: str, first: Tensor, second: Tensor, non_blocking: bool = False) -> Tensor:
    target, source = (first, second) if name == "copy_" else (second, first)
    there, here = isinstance(target, EmulatedTensor), isinstance(source, EmulatedTensor)
    _note(LAUNCH if there and here else READ if here else _kind_of_copy(non_blocking), name)
    _held(target).copy_(_held(source))
    return target


def _kind_of_copy(non_blocking: bool) -> str:
    return COPY if non_blocking else WAITING_COPY


def _look_at_positions(name: str, array: Tensor, positions: Any, values: Tensor | None = None, *_: Any) -> None:
    given = [index for index in positions if index is not None]
    if not isinstance(array, EmulatedTensor):
        if any(isinstance(index, EmulatedTensor) for index in given):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        return
    for index in given:
        if not isinstance(index, EmulatedTensor) and index.dim():
            _note(WAITING_COPY, name)
        fills = values is not None and values.numel() == 1 and not isinstance(values, EmulatedTensor)
        if index.dtype in (torch.bool, torch.uint8) and not fills:  # with one number it is masked_fill
            _note(SHAPE, f"{name} by a mask")


class Accelerator(LightningAccelerator):
    """One emulated device for Lightning."""

    def setup_device(self, device: torch.device) -> None:
        assert device.type == NAME

    def teardown(self) -> None:
        pass

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return int(devices)

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME


class _Backend:
    """What torch asks of ``torch.emulated``."""

    def is_initialized(self) -> bool:
        return True

    is_available = is_initialized

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _kernel(func: Any, *args: Any, **kwargs: Any) -> Any:
    return _dispatch(func, args, kwargs)


@functools.cache
def register() -> torch.device:
    """Make the device and its accelerator known to torch and Lightning, for the rest of the process."""
    from torch.optim import optimizer
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, _Backend())
    every, own = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(_kernel, "PrivateUse1")
    for name in WHOLE:
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            if not overload.endswith("out"):
                kernel = getattr(packet, overload)
                own.impl(kernel, functools.partial(_kernel, kernel), "PrivateUse1")
    register.libraries = every, own  # type: ignore[attr-defined]  # kernels end with these objects
    optimizer._foreach_supported_types.append(EmulatedTensor)  # as parameters on CUDA are
    AcceleratorRegistry.register(NAME, Accelerator)
    return torch.device(NAME, 0)


@contextmanager
def emulation() -> Iterator[torch.device]:
    """Within, the device is there to use, and backward runs in this thread."""
    device = register()
    with torch.autograd.set_multithreading_enabled(False):
        yield device


def emulated(config: Config) -> Config:
    """The same run on the emulated device."""
    return config.changed({"trainer.accelerator": NAME})
