"""An account of the names in a file of weights: which are a network's, which are left over, what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COUNTER = "num_batches_tracked"  # of BatchNorm; evaluation does not read it, and old files lack it
SHOWN = 6  # names in a sentence


@dataclass(frozen=True, slots=True)
class Keys:
    """What became of the tensors of a file (named as there) and of the network's parameters and buffers."""

    prefix: str
    used: tuple[str, ...]
    left_over: tuple[str, ...]
    missing: tuple[str, ...] = ()  # names of the network to which the file has nothing
    misshapen: tuple[str, ...] = ()  # clauses
    surplus: tuple[str, ...] = ()  # of left_over: weights in layers that the network has, so it is another network

    @property
    def fits(self) -> bool:
        return not self.complaints_count

    @property
    def complaints_count(self) -> int:
        return len(self.missing) + len(self.misshapen) + len(self.surplus)

    @property
    def complaints(self) -> str:
        """Why the file does not fit, as part of a sentence."""
        found = [f"it has nothing for {listed(self.missing)}"] if self.missing else []
        more = len(self.misshapen) - SHOWN
        found += [*self.misshapen[:SHOWN], *([f"{more} more shapes differ"] if more > 0 else [])]
        found += [f"the network has no {listed(self.surplus)}"] if self.surplus else []
        return "; ".join(found)


def prefixes(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """What stands before most of the names that end in a wanted one; several where it is a draw, none without any."""
    known, counts = set(wanted), Counter[str]()
    for name in names:
        parts = name.split(".")
        counts.update(".".join([*parts[:i], ""]) for i in range(len(parts)) if ".".join(parts[i:]) in known)
    return [prefix for prefix, count in counts.items() if count == max(counts.values())]


def compare(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, prefix: str, classifier: Sequence[str]
) -> Keys:
    """An account of all names; ``classifier``: layers that the network is without and the file may have."""
    used, missing, misshapen = [], [], []
    for name, parameter in wanted.items():
        tensor = tensors.get(prefix + name)
        if tensor is None:
            if not name.endswith(COUNTER):
                missing.append(name)
        elif _unread(tensor):
            misshapen.append(f"{prefix}{name} is {_unread(tensor)}")
        elif tensor.shape != parameter.shape:
            misshapen.append(f"{prefix}{name} is {times(tensor)} where {times(parameter)} is wanted")
        elif tensor.is_floating_point() != parameter.is_floating_point() and not name.endswith(COUNTER):
            misshapen.append(f"{prefix}{name} is of {tensor.dtype} where {parameter.dtype} is wanted")
        else:
            used.append(prefix + name)
    taken = {prefix + name for name in wanted}
    left_over = [name for name in tensors if name not in taken]
    layers = {name.partition(".")[0] for name in wanted}

    def is_surplus(name: str) -> bool:
        own = name.removeprefix(prefix)
        head = any(own == layer or own.startswith(f"{layer}.") for layer in classifier)
        inside = name.startswith(prefix) and own.partition(".")[0] in layers
        return inside and not head and tensors[name].is_floating_point()

    surplus = [name for name in left_over if is_surplus(name)]
    return Keys(prefix, *map(tuple, (used, left_over, missing, misshapen, surplus)))


def listed(names: Sequence[str]) -> str:
    """The names, if need be in groups by their first parts, or the first ones and how many more there are."""
    if len(names) <= SHOWN:
        return ", ".join(names)
    parts = [name.split(".") for name in names]
    for depth in range(max(map(len, parts)) - 1, 0, -1):
        groups = Counter(".".join(part[:depth]) for part in parts)
        if len(groups) <= SHOWN:
            return ", ".join(f"{group}.* ({count})" if count > 1 else group for group, count in groups.items())
    return f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"


def _unread(tensor: Tensor) -> str:
    """What keeps a tensor from being copied into a network, "" if nothing does."""
    if tensor.is_meta:
        return "without its numbers (a meta tensor)"
    if tensor.is_nested or tensor.is_quantized or tensor.layout is not torch.strided:
        return "sparse, nested or quantized"
    return ""


def times(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"
