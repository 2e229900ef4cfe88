"""Tensors out of a file of weights, with nothing in it run; and the run that wrote it, where it is one of ours.

Names are nested ones joined by dots, without what PyTorch's wrappers put into them. A ResNet's stages that an
``nn.Sequential`` has numbered get their names back.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import safe_open
from torch import Tensor

from ssl_bench.errors import UserError

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
STAGES = 4  # of a ResNet


class _Unread:
    """In place of a plain value that is no weight; keeps and runs nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# What training programs keep beside weights. NumPy's own functions trust what a pickle states, and are not called.
UNREAD = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray", "_codecs.encode", "argparse.Namespace"),
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Float16", "Int64", "Int32", "UInt32", "Bool")),
    *(f"pathlib{inner}.{kind}Path" for inner in ("", "._local") for kind in ("Posix", "Windows", "PurePosix")),
)


class RunConfig(NamedTuple):
    """What the configuration of a run holds of its network and of what that sees."""

    name: str
    stem: str
    width: int
    arguments: dict[str, Any] | None  # of the constructor of timm's model
    clean: dict[str, Any]  # arguments of the clean view, but for mean and standard deviation
    dataset: str
    evaluated: str | None  # student or teacher, where the run has its record


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a file of weights holds."""

    tensors: dict[str, Tensor]
    names: dict[str, str]  # of the tensors, as the file has them
    numbered: bool  # stages had numbers in place of names
    run: RunConfig | None  # that wrote it, where it is one of ours and lies in its run's folder


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a state dict or of what holds one; lists are not looked into.

    Raises:
        UserError: the file is damaged, holds no tensors, or holds a pickle that builds or runs anything else.
    """
    tree = _read(path)
    try:
        found = dict(_leaves(tree)) if isinstance(tree, Mapping) else {}
    except RecursionError:
        raise UserError(f"{path} nests its tensors too deeply to be read: give a state dict.") from None
    if not found:
        raise UserError(f"{path} holds no tensors by name: give a state dict.")
    names = {_without_wrappers(name): name for name in found}
    if len(names) < len(found):
        names = {name: name for name in found}
    stages = _stages(names, found)
    names = {_renamed(name, stages): original for name, original in names.items()}
    tensors = {name: found[original] for name, original in names.items()}
    return Checkpoint(tensors, names, bool(stages), _run(path, tree))


def is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:  # eight bytes of length, then JSON
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read(path: Path) -> Any:
    try:
        if is_safetensors(path):
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        stand_ins: list[Any] = [(_Unread, name) for name in UNREAD]
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of ends in an error, or is an old format
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in many ways, none of them documented
        if "TorchScript" in str(error):
            raise UserError(f"{path} is a TorchScript program and no file of weights: save its state dict.") from None
        foreign = re.search(r"(?:GLOBAL|global:?|class:?) ([\w.]+\.[\w.]+)", str(error))
        if foreign:
            raise UserError(
                f"{path} is not read, for beside weights it holds {foreign[1]}, which could run code: "
                "save the state dict alone."
            ) from None
        # Its own message advises to trust the file; the system's states why it could not be read.
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise UserError(f"{path} is damaged or no file of weights{reason}: give a state dict.") from None


def _leaves(tree: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in tree.items():
        if isinstance(value, Tensor):
            yield f"{before}{name}", value
        elif isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _stages(names: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """By what a numbered name begins with, what it begins with in a ResNet; of torchvision's and its kin's order."""
    numbers = defaultdict[str, list[int]](list)
    for name in names:
        first = re.fullmatch(r"((?:.*\.)?)(\d+)\.0\.conv1\.weight", name)
        if first:
            numbers[first[1]].append(int(first[2]))
    found = dict[str, str]()
    for before, stages in numbers.items():
        kernel = tensors.get(names.get(f"{before}0.weight", ""))
        if len(stages) == STAGES and kernel is not None and kernel.ndim == 4:
            found |= {f"{before}0.": f"{before}conv1.", f"{before}1.": f"{before}bn1."}
            found |= {f"{before}{place}.": f"{before}layer{n}." for n, place in enumerate(sorted(stages), 1)}
    return found


def _renamed(name: str, stages: Mapping[str, str]) -> str:
    return next((new + name.removeprefix(old) for old, new in stages.items() if name.startswith(old)), name)


def _run(path: Path, tree: Any) -> RunConfig | None:
    """What the configuration beside a checkpoint of ours holds; None where there is none."""
    if not (isinstance(tree, Mapping) and isinstance(tree.get("ssl_bench"), Mapping)):
        return None
    for folder in path.absolute().parents[:2]:
        try:
            config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            network, images = config["backbone"], config["dataset"]
            clean = {"size": images["size"], "crop": images["clean_crop"]}
            return RunConfig(
                network["name"],
                network["stem"],
                network["width"],
                network.get("arguments"),
                clean,
                images["name"],
                _evaluated(folder),
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
            continue
    return None


def _evaluated(run: Path) -> str | None:
    """Which network of a finished run its record deploys; None while there is no record."""
    try:
        return str(json.loads((run / "record.json").read_text(encoding="utf-8"))["evaluated"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
