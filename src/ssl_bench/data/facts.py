"""What is known of each dataset before any of it is read, without PyTorch: the entries of ``datasets.yaml``."""

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ssl_bench.config.sources import LOADER
from ssl_bench.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A dataset by its numbers."""

    name: str
    classes: int
    train: int  # images of the official split
    test: int
    channels: int
    height: int  # pixels, native; 0: as stored
    width: int
    mean: tuple[float, ...]  # per channel, over the train split in 0–1; ImageNet's where pictures come in all sizes
    std: tuple[float, ...]
    licence: str
    source: str  # who made it, and where it is described
    hub: Mapping[str, str] = field(default_factory=dict)  # its dataset and licence in the metadata of a model card
    names: tuple[str, ...] = ()  # of the classes, where they have names
    held_out: int | None = None  # images of train for validation, where it is known beforehand
    balanced: tuple[str, ...] = ()  # splits with as many labelled images of each class


def _facts(name: str, entry: dict[str, Any]) -> Facts:
    names = tuple(word.replace("_", " ") for word in entry.pop("names", "").split())
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Facts(name=name, names=names, **values)


_TEXT = importlib.resources.files("ssl_bench.data").joinpath("datasets.yaml").read_text(encoding="utf-8")
FACTS = {name: _facts(name, entry) for name, entry in yaml.load(_TEXT, LOADER).items()}
STL10 = {"train+unlabeled": 105_000, "unlabeled": 100_000, "train": 5_000}  # of train, by dataset.split
STL10_HELD_OUT = {"all": 500, "fold": 100}  # of these, by the labels that are read


def is_published(dataset: str) -> bool:
    """Whether its numbers are known beforehand, as those of a user's own pictures are not."""
    return dataset in FACTS and FACTS[dataset].train > 0


def require_root(dataset: str, options: Mapping[str, Any]) -> None:
    """UserError where pictures of one's own are asked for and no folder is named; published ones may be in data_dir."""
    if "root" in options and options["root"] is None and not is_published(dataset):
        raise UserError(f"dataset={dataset} needs to know where the pictures are: set dataset.root=<folder>.")
