"""The files of conf/ as Hydra composes them: values with their references, and the file of each group.

Hydra composes each file once in a process, since a command may read hundreds of configurations.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from ssl_bench.config import sources
from ssl_bench.config.options import CHOICES, GROUPS, bases
from ssl_bench.config.schema import Plain
from ssl_bench.errors import UserError

_PARTS: dict[tuple[str, str], Plain] = {}  # of compositions, by group and choice; "" for config.yaml itself


def _times(factor: int | float, value: int | float) -> int | float:
    """A multiple of another value."""
    return factor * value


def _part(share: int | float, value: int | float) -> int:
    """A share of another value as a whole number of at least 1."""
    return max(1, round(share * value))


def _equal_updates(epochs: int, batch_size: int, usual: int) -> int:
    """Epochs of ``batch_size`` images a step with as many steps as ``epochs`` of the ``usual`` ones have."""
    return _part(batch_size / usual, epochs)


def _linear_rate(rate: float, batch_size: int, usual: int) -> float:
    """A learning rate in proportion to the batch (Goyal et al. 2017): ``rate`` is that of the ``usual`` one."""
    return batch_size / usual * rate


def _queue_for(queue: int, batches: int, batch_size: int) -> int:
    """``queue``, or the keys of one step, ``batches`` × ``batch_size``, where these are more."""
    return max(queue, batches * batch_size)


class _OwnFolders(SearchPathPlugin):
    """Lets Hydra find users' files beside the package's."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in sources.OWN:
            search_path.append("ssl_bench", f"file://{folder}")


Plugins.instance().register(_OwnFolders)
OmegaConf.register_new_resolver("times", _times, replace=True)
OmegaConf.register_new_resolver("part", _part, replace=True)
OmegaConf.register_new_resolver("linear_rate", _linear_rate, replace=True)
OmegaConf.register_new_resolver("queue_for", _queue_for, replace=True)
OmegaConf.register_new_resolver("equal_updates", _equal_updates, replace=True)


def tree_of(groups: tuple[str, ...]) -> tuple[Plain, dict[str, str]]:
    """The composition under ``group=choice``, and the file of each group.

    Of files that set nothing outside their groups, which all but experiments are, any other composition is put
    together from those that Hydra has made.
    """
    choices = {**CHOICES, **dict(chosen.split("=", 1) for chosen in groups)}
    choices = {group: choices[choice[2:-1]] if choice[0] == "$" else choice for group, choice in choices.items()}
    if ("", "") not in _PARTS or not choices.items() <= _PARTS.keys():
        tree, choices = _hydra(groups)
        if not _keep(tree, choices):
            return tree, choices
    parts = (_PARTS[part] for part in (("", ""), *choices.items()))
    return copy.deepcopy({key: value for part in parts for key, value in part.items()}), choices


def read_ahead(parts: Iterable[tuple[str, str]]) -> None:
    """Let Hydra compose the files ``(group, choice)`` at once, which takes as long as one of them alone.

    Files that go with another one's name unless chosen, as the views of a dataset do, are composed with it.
    """
    parts = list(parts)
    follow = {group: of[2:-1] for group, of in CHOICES.items() if of[0] == "$"}
    parts += [(group, choice) for group, of in follow.items() for other, choice in parts if other == of]
    known = (part for part in parts if part[1] in GROUPS.get(part[0], ()) and part not in _PARTS)
    new = [(group, choice) for group, choice in dict.fromkeys(known) if _stays_inside(f"{group}/{choice}.yaml")]
    if len(new) > 1:
        tree, choices = _hydra(
            tuple(f"+{group}@ahead.file{number}={choice}" for number, (group, choice) in enumerate(new))
        )
        ahead = tree.pop("ahead")
        for number, (group, choice) in enumerate(new):
            node = ahead.get(f"file{number}")
            _PARTS[group, choice] = {group: node} if node else {}
        _keep(tree, choices)


def _keep(tree: Plain, choices: Mapping[str, str]) -> bool:
    """Keep the parts of a composition, which leave ``tree``, unless a file of it sets anything outside its group."""
    if not all(_stays_inside(f"{group}/{choice}.yaml") for group, choice in choices.items()):
        return False
    for group, choice in choices.items():
        _PARTS[group, choice] = {group: tree.pop(group)} if group in tree else {}
    _PARTS["", ""] = tree
    return True


@functools.cache
def _stays_inside(file: str) -> bool:
    """Whether a file of conf/, or one that it builds on, neither sets nor chooses anything outside its group."""
    entries = sources.load(file).get("defaults", ())
    plain = all(isinstance(entry, str) and not re.search("[/@]", entry) for entry in entries)
    return plain and "@package" not in sources.read(file) and all(_stays_inside(base) for base in bases(file))


def _hydra(groups: tuple[str, ...]) -> tuple[Plain, dict[str, str]]:
    """Hydra's composition of the files, and the file of each group."""
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module("ssl_bench.conf", version_base="1.3"):
            config = hydra.compose("config", overrides=list(groups), return_hydra_config=True)
    except MissingConfigException as error:  # augment has a file for every dataset of the package
        group, _, name = str(error.missing_cfg_file).partition("/")
        known = ", ".join(GROUPS.get(group, ()))
        raise UserError(f"conf/{group}/{name}.yaml is missing: write it, or set {group}= to one of {known}.") from None
    tree: Any = OmegaConf.to_container(config)
    choices = tree.pop("hydra")["runtime"]["choices"]
    return tree, {group: str(choices[group]) for group in GROUPS}
