"""Any encoder from a file of weights, with an account of every key.

Files: ours, which state what network they hold; or a state dict as torchvision, timm and Lightning save it. Wrappers
such as ``{"state_dict": …}`` and prefixes such as ``module.`` are one thing here: what stands before the network's own
names once nested names are joined by dots.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ssl_bench.conditions import require_arguments
from ssl_bench.errors import UserError
from ssl_bench.nn.backbone import LAYERS, build_backbone, require_size
from ssl_bench.nn.heads import mlp_of
from ssl_bench.results.checkpoints import read_checkpoint
from ssl_bench.results.encoder import encoder_file, read_encoder
from ssl_bench.results.keys import Keys, compare, listed, prefixes, times
from ssl_bench.results.run_folder import RunFolder

DEPLOYED = "state_dict.{}.backbone"  # where our checkpoints have the network that a method deploys
CLASSIFIER = ("fc",)  # of torchvision's ResNets, which ours are without
# Arguments of build_backbone, what they build, clauses, and the file's tensors as the network takes them.
Found = tuple[dict[str, Any], Keys, nn.Module, list[str], Mapping[str, Tensor]]
STEMS = {(7, 7): "imagenet", (3, 3): "cifar"}  # by the first kernel; small has one of 3 × 3, too, and is asked for


@dataclass(frozen=True, slots=True, eq=False)
class LoadedEncoder:
    """An encoder as its file has it."""

    file: Path
    backbone: nn.Module  # in eval mode; normalised images [N, C, S, S] → [N, F]
    network: dict[str, Any]  # arguments of build_backbone
    keys: Keys
    clean: dict[str, Any] | None = None  # arguments of the clean view, None where the file does not state them
    statistics: tuple[list[float], list[float]] | None = None  # mean and std that timm publishes for the model
    dataset: str | None = None  # by whose mean and std a checkpoint of ours normalises
    assumed: tuple[str, ...] = ()  # clauses
    fingerprint: str | None = None  # of the run that trained it

    @property
    def channels(self) -> int:
        return int(self.network["channels"])

    def require_size(self, size: int) -> None:
        """UserError if the network takes no images of ``size`` pixels, or gives no features ``[N, F]`` of them."""
        require_size(self.backbone, self.network["name"], self.channels, size)


def open_encoder(
    run_or_file: str | Path,
    *,
    name: str | None,
    stem: str | None,
    width: int | None,
    prefix: str | None,
    arguments: Mapping[str, Any] | None = None,
) -> LoadedEncoder:
    """The encoder of a run's folder or of any file of weights.

    A checkpoint of ours has its network stand in the configuration of its run. What a foreign file does not
    state: name, stem, width and arguments as for `build_backbone`, or None to conclude it from the weights; prefix:
    what stands before the network's names, None to find it. Nothing in the file is run.

    Raises:
        UserError: the file is missing, damaged or no file of weights; its names or shapes are not the network's; its
            stem cannot be known; or one of the arguments contradicts a file of ours.
    """
    path = encoder_file(run_or_file)
    given = {"backbone": name, "stem": stem, "width": width, "arguments": arguments}
    if _is_ours(path):
        _refuse(path, {**given, "prefix": prefix})
        encoder, description = read_encoder(path)
        return LoadedEncoder(
            file=path,
            backbone=encoder.backbone,
            network=description["backbone"],
            keys=Keys("", tuple(encoder.backbone.state_dict()), ()),
            clean=description["clean"],
            fingerprint=description.get("fingerprint"),
        )
    file = read_checkpoint(path)
    run = file.run
    if run is not None:
        _refuse(path, given)
        name, stem, width, arguments = run.name, run.stem, run.width, run.arguments
        prefix = prefix if prefix is not None or run.evaluated is None else DEPLOYED.format(run.evaluated)
    if arguments:
        require_arguments(name or "a ResNet", arguments, sizes=())
    if name is not None and name not in LAYERS:
        network, keys, backbone, assumed, tensors = _timm(path, file.tensors, name, prefix, arguments)
    else:
        network, keys, backbone, assumed, tensors = _resnet(path, file.tensors, name, stem, width, prefix)
    if file.numbered:
        assumed.append("its numbered layers are those of a ResNet, in their order")
    weights = {name.removeprefix(keys.prefix): tensors[name] for name in keys.used}
    backbone.load_state_dict(weights, strict=False)
    about: Any = getattr(backbone, "pretrained_cfg", {"mean": ()})  # of timm's
    published = len(about["mean"]) == network["channels"]
    used, left_over = (tuple(file.names.get(name, name) for name in names) for names in (keys.used, keys.left_over))
    return LoadedEncoder(
        file=path,
        backbone=backbone.to(memory_format=torch.channels_last).eval(),
        network=network,
        keys=replace(keys, used=used, left_over=left_over),  # as the file has them
        clean=run and run.clean,
        statistics=(list(about["mean"]), list(about["std"])) if published else None,
        dataset=run and run.dataset,
        assumed=tuple(assumed),
    )


def open_projector(encoder: LoadedEncoder) -> tuple[nn.Sequential | None, Path]:
    """The projector that was trained with an encoder of ours, in eval mode, and the checkpoint that it is read from.

    None where the checkpoint is not at hand, or its network has no projector. Raises UserError for a damaged one.
    """
    beside = RunFolder(encoder.file.parent).checkpoint
    path = beside if _is_ours(encoder.file) else encoder.file
    file = read_checkpoint(path) if path.is_file() else None
    if file is None or file.run is None:
        return None, path
    backbone = encoder.keys.prefix or f"{DEPLOYED.format(file.run.evaluated)}."
    before = f"{backbone.removesuffix('backbone.')}projector."
    state = {name.removeprefix(before): file.tensors[name] for name in file.tensors if name.startswith(before)}
    try:
        return (mlp_of(state).eval() if state else None), path
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path} has no projector of ours below {before} ({' '.join(str(error).split())}).") from None


def states_network(path: Path) -> bool:
    """Whether a file of weights states itself what network it holds, as ours do."""
    return _is_ours(path) or read_checkpoint(path).run is not None


def _refuse(path: Path, given: Mapping[str, Any]) -> None:
    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        raise UserError(f"{path} states itself what network it holds: leave {' and '.join(wrong)} out.")


def sha256(path: Path) -> str:
    """Of a file's content."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            sha.update(block)
    return sha.hexdigest()


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return "ssl_bench" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return path.name == "encoder.safetensors"  # a damaged one, which shall be called so


def _prefix(path: Path, tensors: Mapping[str, Tensor], wanted: Sequence[str], name: str, given: str | None) -> str:
    found = prefixes(list(tensors), wanted)
    if given is not None:
        given = f"{given.rstrip('.')}." if given else ""
        if not any(f"{given}{known}" in tensors for known in wanted):
            other = f"prefix={found[0].rstrip('.')} has some" if found and found[0] else "without one there are some"
            hint = f"; {other}" if found else ""
            raise UserError(f"{path} has no tensor of {name} below prefix={given.rstrip('.')}{hint}.")
        return given
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
        raise UserError(f"{path} does not fit {name}: {keys.complaints}. Name the network that it holds.")


def _resnet(
    path: Path, tensors: Mapping[str, Tensor], name: str | None, stem: str | None, width: int | None, prefix: str | None
) -> Found:
    found: dict[str, tuple[Keys, dict[str, Any]]] = {}
    for candidate in [name] if name else LAYERS:
        names = list(_shapes(candidate, stem="imagenet", width=64, channels=3))
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
                f"{'missing' if first is None else times(first)}, and one of 7×7 or 3×3 pixels is wanted."
            )
        network: dict[str, Any] = {
            "name": candidate,
            "stem": stem or STEMS[sides],
            "width": width or first.shape[0],
            "channels": first.shape[1],
        }
        found[candidate] = compare(tensors, _shapes(**network), prefix=before, classifier=CLASSIFIER), network
    if not found:
        raise UserError(
            f"{path} does not state which network it holds, and its names are not those of a ResNet ("
            f"{listed(list(tensors)[:3])} …): name it, as timm/<model>."
        )
    chosen = min(found, key=lambda candidate: found[candidate][0].complaints_count)
    keys, network = found[chosen]
    nearest = "any ResNet of ours; nearest is " if name is None else ""
    _require(path, keys, f"{nearest}{chosen} with the {network['stem']} stem")
    if stem is None and network["stem"] == "cifar":
        raise UserError(
            f"{path} does not show its stem, for cifar and small have weights of the same shapes: set backbone.stem= "
            "(of embed: stem=) to cifar if its first layer has stride 1, to small if it has stride 2."
        )
    assumed = [f"{chosen}, by its layers"] if name is None else []
    if stem is None:
        assumed.append(f"the {network['stem']} stem, for its first layer is 7×7")
    return network, keys, build_backbone(**network)[0], assumed, tensors


@functools.cache
def _shapes(name: str, *, stem: str, width: int, channels: int) -> Mapping[str, Tensor]:
    """The network's tensors without their numbers, by name."""
    with torch.device("meta"):
        state: Mapping[str, Tensor] = build_backbone(name, stem=stem, width=width, channels=channels)[0].state_dict()
    return state


def _timm(
    path: Path,
    tensors: Mapping[str, Tensor],
    name: str,
    prefix: str | None,
    arguments: Mapping[str, Any] | None,
) -> Found:
    found: list[Found] = []
    for channels in (3, 1):
        network: dict[str, Any] = {"name": name, "stem": "imagenet", "width": 64, "channels": channels}
        if arguments:
            network["arguments"] = dict(arguments)
        backbone: Any = build_backbone(**network)[0]
        heads = backbone.pretrained_cfg.get("classifier") or ()
        wanted = backbone.state_dict()
        before = _prefix(path, tensors, list(wanted), name, prefix)
        classifier = (heads,) if isinstance(heads, str) else tuple(heads)
        keys = compare(tensors, wanted, prefix=before, classifier=classifier)
        found.append((network, keys, backbone, [], tensors))
        if arguments and not keys.fits:
            resampled = _resampled(backbone, tensors, before)
            keys = compare(resampled, wanted, prefix=before, classifier=classifier)
            clause = "patches and positions are resampled by timm to those of backbone.arguments"
            found.append((network, keys, backbone, [clause], resampled))
        if keys.fits:
            return found[-1]
    _require(path, found[0][1], name)
    raise AssertionError  # found[0] does not fit


def _resampled(backbone: nn.Module, tensors: Mapping[str, Tensor], before: str) -> Mapping[str, Tensor]:
    """The tensors below ``before`` as timm itself loads them into a network of other patches or sizes."""
    load = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    own = {name.removeprefix(before): tensor for name, tensor in tensors.items() if name.startswith(before)}
    try:
        loaded: Mapping[str, Tensor] = load(own, backbone) if load else {}
    except (RuntimeError, KeyError, AttributeError):  # of another network
        loaded = {}
    return {**tensors, **{f"{before}{name}": tensor for name, tensor in loaded.items()}}
