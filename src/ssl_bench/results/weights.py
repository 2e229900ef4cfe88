"""Any encoder from a file of weights, with an account of every key.

Files: ours, which say what network they hold; or a state dict as torchvision, timm and Lightning save it. Wrappers such
as ``{"state_dict": …}`` and prefixes such as ``module.`` are one thing here: what stands before the network's own names
once nested names are joined by dots.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ssl_bench.errors import UserError
from ssl_bench.nn.backbone import LAYERS, build_backbone, require_size
from ssl_bench.results.encoder import encoder_file, read_encoder

CLASSIFIER = ("fc",)  # of torchvision's ResNets, which ours are without
COUNTER = "num_batches_tracked"  # of BatchNorm; evaluation does not read it, and old files lack it
STEMS = {(7, 7): "imagenet", (3, 3): "cifar"}  # by the first kernel; small has one of 3 × 3, too
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


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An encoder as its file has it."""

    file: Path
    backbone: nn.Module  # in eval mode; normalised images [N, C, S, S] → [N, F]
    network: dict[str, Any]  # arguments of build_backbone
    clean: dict[str, Any] | None  # arguments of the clean view, None where the file does not say
    statistics: tuple[list[float], list[float]] | None  # mean and std that timm publishes for the model
    keys: Keys
    assumed: tuple[str, ...]  # clauses
    fingerprint: str | None  # of the run that trained it

    @property
    def channels(self) -> int:
        return int(self.network["channels"])

    def require_size(self, size: int) -> None:
        """UserError if the network takes no images of ``size`` pixels, or gives no features ``[N, F]`` of them."""
        require_size(self.backbone, self.network["name"], self.channels, size)


def open_encoder(
    run_or_file: str | Path, *, name: str | None, stem: str | None, width: int | None, prefix: str | None
) -> Opened:
    """The encoder of a run's folder or of any file of weights.

    What a foreign file does not say: name, stem and width as for `build_backbone`, or None to look at the weights;
    prefix: what stands before the network's names, None to find it. Nothing in the file is run.

    Raises:
        UserError: the file is missing, damaged or no file of weights; its names or shapes are not the network's; or
            one of the words contradicts a file of ours.
    """
    path = encoder_file(run_or_file)
    if _is_ours(path):
        said = {"backbone": name, "stem": stem, "width": width, "prefix": prefix}
        wrong = [word for word, value in said.items() if value is not None]
        if wrong:
            raise UserError(f"{path} says itself what network it holds: leave {' and '.join(wrong)} out.")
        encoder, description = read_encoder(path)
        return Opened(
            file=path,
            backbone=encoder.backbone,
            network=description["backbone"],
            clean=description["clean"],
            statistics=None,
            keys=Keys("", tuple(encoder.backbone.state_dict()), ()),
            assumed=(),
            fingerprint=description.get("fingerprint"),
        )
    tensors = read_tensors(path)
    if name is not None and name not in LAYERS:
        return _open_timm(path, tensors, name, prefix)
    return _open_resnet(path, tensors, name, stem, width, prefix)


# -- reading --------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """Of a file's content."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            sha.update(block)
    return sha.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a state dict or of what holds one, nested names joined by dots; lists are not looked into.

    Raises:
        UserError: the file is damaged, holds no tensors, or holds a pickle that builds or runs anything else.
    """
    try:
        if _is_safetensors(path):
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        tree = torch.load(path, map_location="cpu", weights_only=True)
        found = dict(_leaves(tree)) if isinstance(tree, Mapping) else {}
    except Exception as error:  # torch.load fails in many ways, none of them documented
        foreign = re.search(r"(?:GLOBAL|global:?|class:?) ([\w.]+\.[\w.]+)", str(error))
        if foreign:
            raise UserError(
                f"{path} is not read, for beside weights it holds {foreign[1]}, which could run code: "
                "save the state dict alone."
            ) from None
        # Its own words advise to trust the file; the system's say why it could not be read.
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise UserError(f"{path} is damaged or no file of weights{reason}: give a state dict.") from None
    if not found:
        raise UserError(f"{path} holds no tensors by name: give a state dict.")
    return found


def _leaves(tree: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in tree.items():
        if isinstance(value, Tensor):
            yield f"{before}{name}", value
        elif isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:  # eight bytes of length, then JSON
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return "ssl_bench" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return path.name == "encoder.safetensors"  # a damaged one, which shall be called so


# -- names and shapes -----------------------------------------------------------------------------


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
        elif tensor.shape != parameter.shape:
            misshapen.append(f"{prefix}{name} is {_times(tensor)} where {_times(parameter)} is wanted")
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


def _times(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"


def _prefix(path: Path, tensors: Mapping[str, Tensor], wanted: Sequence[str], name: str, said: str | None) -> str:
    found = prefixes(list(tensors), wanted)
    if said is not None:
        said = f"{said.rstrip('.')}." if said else ""
        if not any(f"{said}{known}" in tensors for known in wanted):
            other = f"prefix={found[0].rstrip('.')} has some" if found and found[0] else "without one there are some"
            hint = f"; {other}" if found else ""
            raise UserError(f"{path} has no tensor of {name} below prefix={said.rstrip('.')}{hint}.")
        return said
    if not found:
        raise UserError(
            f"{path} is not of {name}: none of its {len(tensors)} tensors is called as one of the network's; the first "
            f"are {listed(list(tensors)[:3])}."
        )
    if len(found) > 1 and "" not in found:
        raise UserError(
            f"{path} holds {len(found)} networks alike, below {listed(found)}: choose one, as by prefix={found[0]}"
        )
    return "" if "" in found else found[0]


def _require(path: Path, keys: Keys, name: str) -> None:
    if not keys.fits:
        raise UserError(f"{path} does not fit {name}: {keys.complaints}.")


def _filled(network: nn.Module, tensors: Mapping[str, Tensor], keys: Keys) -> nn.Module:
    network.load_state_dict({name.removeprefix(keys.prefix): tensors[name] for name in keys.used}, strict=False)
    return network.to(memory_format=torch.channels_last).eval()


# -- networks -------------------------------------------------------------------------------------


def _open_resnet(
    path: Path,
    tensors: Mapping[str, Tensor],
    name: str | None,
    stem: str | None,
    width: int | None,
    prefix: str | None,
) -> Opened:
    found: dict[str, tuple[Keys, dict[str, Any]]] = {}
    for candidate in [name] if name else LAYERS:
        with torch.device("meta"):  # names and shapes are all that is asked for
            names = list(build_backbone(candidate, stem="imagenet", width=64, channels=3)[0].state_dict())
            if not name and not prefixes(list(tensors), names):
                continue
            before = _prefix(path, tensors, names, candidate, prefix)
            first = tensors.get(f"{before}conv1.weight")
            if first is None and not name:
                continue
            sides = () if first is None else tuple(first.shape[2:])
            if first is None or len(sides) != 2 or (stem is None and sides not in STEMS):
                raise UserError(
                    f"{path} is of no ResNet of ours: its {before}conv1.weight is "
                    f"{'missing' if first is None else _times(first)}, and one of 7×7 or 3×3 pixels is wanted."
                )
            network: dict[str, Any] = {
                "name": candidate,
                "stem": stem or STEMS[sides],
                "width": width or first.shape[0],
                "channels": first.shape[1],
            }
            wanted = build_backbone(**network)[0].state_dict()
        found[candidate] = compare(tensors, wanted, prefix=before, classifier=CLASSIFIER), network
    if not found:
        raise UserError(
            f"{path} does not say which network it holds, and its names are not those of a ResNet ("
            f"{listed(list(tensors)[:3])} …): name it, as timm/<model>."
        )
    chosen = min(found, key=lambda candidate: found[candidate][0].complaints_count)
    keys, network = found[chosen]
    nearest = "any ResNet of ours; nearest is " if name is None else ""
    _require(path, keys, f"{nearest}{chosen} with the {network['stem']} stem")
    assumed = [f"{chosen}, by its layers"] if name is None else []
    if stem is None:
        side = tensors[f"{keys.prefix}conv1.weight"].shape[-1]
        assumed.append(f"the {network['stem']} stem, for its first layer is {side}×{side}")
    return Opened(
        file=path,
        backbone=_filled(build_backbone(**network)[0], tensors, keys),
        network=network,
        clean=None,
        statistics=None,
        keys=keys,
        assumed=tuple(assumed),
        fingerprint=None,
    )


def _open_timm(path: Path, tensors: Mapping[str, Tensor], name: str, prefix: str | None) -> Opened:
    found = []
    for channels in (3, 1):
        network: dict[str, Any] = {"name": name, "stem": "imagenet", "width": 64, "channels": channels}
        backbone: Any = build_backbone(**network)[0]
        about = backbone.pretrained_cfg
        heads = about.get("classifier") or ()
        wanted = backbone.state_dict()
        before = _prefix(path, tensors, list(wanted), name, prefix)
        keys = compare(tensors, wanted, prefix=before, classifier=(heads,) if isinstance(heads, str) else tuple(heads))
        found.append(keys)
        if keys.fits:
            return Opened(
                file=path,
                backbone=_filled(backbone, tensors, keys),
                network=network,
                clean=None,
                statistics=(list(about["mean"]), list(about["std"])) if channels == len(about["mean"]) else None,
                keys=keys,
                assumed=(),
                fingerprint=None,
            )
    _require(path, found[0], name)
    raise AssertionError  # found[0] does not fit
