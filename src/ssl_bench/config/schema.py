"""The configuration of a run as one frozen object: what ``compose`` gives and every room above reads.

``as_dict`` gives the plain nested dict that ``config.yaml``, ``record.json`` and fingerprints hold, ``from_dict`` reads
it back. Types are those of the values in ``conf/``, where ranges, meanings and defaults stand. ``options`` hold what
only one choice of a group has, as a method's own hyperparameters: they go unread to what they are for.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

Plain = dict[str, Any]  # numbers, strings, lists and such dicts


class Part:
    def as_dict(self) -> Plain:
        """The plain nested dict, with ``options`` among the keys."""
        tree: Plain = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.name == "options":
                tree |= copy.deepcopy(dict(value))
            elif value is not None or field.default is not None:
                tree[field.name] = _plain(value)
        return tree


@dataclass(frozen=True)
class Optimizer(Part):
    name: str
    lr: float
    momentum: float
    weight_decay: float
    exclude_bias_and_norm: bool
    bias_and_norm_lr: float
    trust: float
    scale_lr_with_batch: bool
    warmup: float  # share of all steps
    schedule: str


@dataclass(frozen=True)
class Order(Part):
    name: str
    window: float  # share of the images
    strides: int


@dataclass(frozen=True)
class Projector(Part):
    layers: int
    hidden: int
    out: int | None  # None: one output per class
    output_norm: bool | None = None  # None: no option of the method


@dataclass(frozen=True)
class Method(Part):
    name: str
    target: str  # dotted name of the class
    projector: Projector
    concat_views: bool
    options: Mapping[str, Any]  # of its constructor


@dataclass(frozen=True)
class Dataset(Part):
    name: str
    size: int  # pixels of a view's side
    clean_crop: float
    resident: str
    stem: str
    epochs: int
    subset: int | None
    eval_every: int
    queue: int
    window: float
    options: Mapping[str, Any]  # of its reader


@dataclass(frozen=True)
class Scale(Part):
    name: str
    batch_size: int
    backbone: str
    width: int
    projector_hidden: int
    projector_out: int
    optimizer: str
    lr: float
    weight_decay: float
    warmup: float
    schedule: str
    eval_every: int
    monitor_every: int
    concat_views: bool
    hold_out_validation: bool


@dataclass(frozen=True)
class Backbone(Part):
    name: str
    stem: str
    width: int
    arguments: Mapping[str, Any] | None = None  # of the constructor of timm's model; None for none


@dataclass(frozen=True)
class Views(Part):
    """A group of views of one size."""

    count: int
    size: int  # pixels of a side
    options: Mapping[str, Any]  # of its augmentations; those that are missing are as for the full-size views


@dataclass(frozen=True)
class Augment(Part):
    chunk: int
    groups: Mapping[str, Views]

    @property
    def sizes(self) -> dict[str, int]:
        """Pixels of a side, by the groups that have views."""
        return {name: views.size for name, views in self.groups.items() if views.count}

    @property
    def view_groups(self) -> list[Plain]:
        """The groups that have views, whole: what one leaves out is as for the full-size views."""
        alike = self.groups["global"].as_dict()
        return [alike | views.as_dict() for views in self.groups.values() if views.count]

    @property
    def view_sizes(self) -> list[int]:
        """Pixels of a side of every view."""
        return [views.size for views in self.groups.values() for _ in range(views.count)]


@dataclass(frozen=True)
class Linear(Part):
    learning_rates: tuple[float, ...]
    epochs: int
    batch_size: int
    momentum: float
    weight_decay: float


@dataclass(frozen=True)
class FineTune(Part):
    learning_rates: tuple[float, ...]
    steps: int
    batch_size: int
    momentum: float
    weight_decay: float
    flip: float


@dataclass(frozen=True)
class Evaluation(Part):
    protocols: tuple[str, ...]
    curves: tuple[str, ...]
    monitor: str
    batch_size: int
    memory: int  # bytes
    linear: Linear
    finetune: FineTune
    projector: bool = False  # score its output, too


@dataclass(frozen=True)
class Trainer(Part):
    accelerator: str
    devices: int  # of each machine
    nodes: int
    sync_batchnorm: bool
    timeout: float  # seconds
    precision: str
    deterministic: bool
    compile: bool
    accumulate: int
    clip: float | None
    threads: int | None
    checkpoint_seconds: float
    progress: bool

    @property
    def processes(self) -> int:
        return self.devices * self.nodes


@dataclass(frozen=True)
class Logger(Part):
    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Config(Part):
    seed: int
    recipe: str
    rerun: bool
    runs_dir: str
    data_dir: str
    epochs: int
    batch_size: int
    subset: int | None
    init: str | None  # file or run that backbones start from
    labels: int | None
    eval_on: str | None  # second dataset of the curves
    eval_every: int
    monitor_every: int
    optimizer: Optimizer
    order: Order
    method: Method
    dataset: Dataset
    scale: Scale
    backbone: Backbone
    augment: Augment
    evaluation: Evaluation
    trainer: Trainer
    logger: Logger

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Config:
        """The configuration that ``as_dict`` gave; KeyError with the dotted key that one lacks."""
        config: Config = _typed(cls, tree)
        return config

    def changed(self, values: Mapping[str, Any]) -> Config:
        """Another configuration, with ``values`` by dotted key."""
        tree = self.as_dict()
        for key, value in values.items():
            try:
                value_at(tree, key)
            except KeyError:
                raise KeyError(key) from None
            put(tree, key, value)
        return Config.from_dict(tree)


def value_at(tree: Plain, key: str) -> Any:
    """What stands at ``a.b.c``."""
    return functools.reduce(operator.getitem, key.split("."), tree)


def put(tree: Plain, key: str, value: Any) -> None:
    """Set what stands at ``a.b.c``."""
    above, _, name = key.rpartition(".")
    (value_at(tree, above) if above else tree)[name] = value


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _typed(kind: Any, tree: Mapping[str, Any]) -> Any:
    values: dict[str, Any] = {}
    hints: dict[str, Any] = _hints(kind)
    for name, hint in hints.items():
        if name == "options":
            values[name] = copy.deepcopy({key: value for key, value in tree.items() if key not in hints})
        elif is_dataclass(hint):
            below = tree[name]
            try:
                values[name] = _typed(hint, below)
            except KeyError as error:
                raise KeyError(f"{name}.{error.args[0]}") from None
        elif name == "groups":
            values[name] = {group: _typed(Views, views) for group, views in tree[name].items()}
        elif name in tree or not hasattr(kind, name):
            values[name] = tuple(tree[name]) if isinstance(tree[name], list) else tree[name]
            if values[name] == {}:  # as where there is no such key
                values[name] = None
    return kind(**values)


_hints = functools.cache(get_type_hints)
