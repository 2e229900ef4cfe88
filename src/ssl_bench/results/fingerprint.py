"""What makes two runs the same run: everything that changes its numbers, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ssl_bench.config.options import identities

# Raised whenever the same configuration gives other numbers than before.
NUMERICS = 1

# What the comments in conf/ state of options beside their values.
FREE = {key for key, identity in identities().items() if identity == "no"}
LEFT_OUT = FREE | {key for key, identity in identities().items() if identity == "elsewhere"}
NEUTRAL: dict[str, Any] = {
    key: yaml.safe_load(identity.removeprefix("unless "))
    for key, identity in identities().items()
    if identity.startswith("unless ")
}

# Epochs between two measurements of the live monitor, which changes no score, by scale: today's default, and the one
# under which runs got their names.
FIRST_DEFAULTS: dict[tuple[Any, Any], int] = {("cpu", 5): 2, ("paper", 10): 1}


def fingerprint(
    config: Mapping[str, Any],
    *,
    data_digest: str,
    precision: str,
    device: str = "cpu",
    statistics_shares: int = 1,
    numerics: int | None = None,
    init: str | None = None,
) -> str:
    """Twelve hexadecimal digits naming a run.

    config: resolved; data_digest: of the images and labels read; precision: as resolved for the device; device:
    ``cpu`` or ``cuda``; statistics_shares: parts of the global batch that BatchNorm takes statistics of, 1 where it
    takes them of all; numerics: of the code that computed, None for this one; init: SHA-256 of the weights that
    it starts from, None for random ones.
    """
    leaves = dict(_leaves(config))
    for key, neutral in NEUTRAL.items():
        if leaves.get(key) == neutral:
            leaves.pop(key, None)
    first = FIRST_DEFAULTS.get((leaves.get("scale.name"), leaves.get("monitor_every")))
    if first is not None:
        leaves["monitor_every"] = first
    leaves["trainer.precision"] = precision
    identity = {"config": leaves, "data": data_digest, "numerics": NUMERICS if numerics is None else numerics}
    if device != "cpu":  # whose runs had names first
        identity["device"] = device
    if init is not None:
        identity["init"] = init
    if fine_tunes(leaves.get("evaluation.protocols", ())):
        identity["finetune"] = config["evaluation"]["finetune"]
    if statistics_shares > 1:
        identity["statistics_shares"] = statistics_shares
    if str(leaves.get("backbone.name")).startswith("timm/"):
        identity["timm"] = 2  # in the first version of these runs oneDNN spoilt weights over single pixels
    if leaves.get("trainer.accumulate", 1) > 1:
        # In the first version an epoch's last step took too small a gradient, and in the second one DirectPred's
        # correlation moved with every batch.
        identity["accumulate"] = {"directpred": 3}.get(str(leaves.get("method.name")), 2)
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def fine_tunes(protocols: Iterable[str]) -> bool:
    """Whether one of these protocols reads the options ``evaluation.finetune``."""
    return any(name.startswith("finetune") for name in protocols)


def configuration_key(config: Mapping[str, Any]) -> str:
    """Names what a run was asked for, but for data, places of files, precision and how BatchNorm is shared."""
    # Without the data, whose digest covers them, these alone show which images they were.
    dataset = config["dataset"]
    chosen = {key: dataset[key] for key in ("split", "fold") if key in dataset}
    chosen |= {key: dataset[key] for key in ("depth", "min_images") if dataset.get(key) is not None}
    if config.get("init"):  # records hold the last part of its path
        chosen["init"] = Path(config["init"]).name
    return fingerprint(config, data_digest=json.dumps(chosen), precision="")


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            found += _leaves(value, f"{key}.")
        else:
            found.append((key, value))
    return found
