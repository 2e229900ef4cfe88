"""Weights that a run's backbones start from, ``init=``: found on disk, accounted for, and named by their content."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.results.encoder import encoder_file
from ssl_bench.results.keys import listed
from ssl_bench.results.weights import LoadedEncoder, open_encoder, sha256, states_network

TIMM = "timm"  # in place of a file: the weights that timm publishes for the backbone
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def file_of(config: Config) -> Path | None:
    """The file of weights; None where the run starts from random ones. UserError where it is not on disk."""
    if config.init is None:
        return None
    return _published(config.backbone.name) if config.init == TIMM else encoder_file(config.init)


def digest(config: Config) -> str | None:
    """SHA-256 of the file, by which it counts in the run's name."""
    file = file_of(config)
    return None if file is None else sha256(file)


def load(config: Config, channels: int) -> LoadedEncoder | None:
    """The network in the file, which is that of the run; UserError where it is another.

    channels: of the dataset.
    """
    file = file_of(config)
    if file is None:
        return None
    wanted = {**config.backbone.as_dict(), "channels": channels}
    given = {key: wanted.get(key) for key in ("name", "stem", "width", "arguments")}
    with torch.random.fork_rng(devices=[]):  # all but the backbone has the weights that it has without init
        found = open_encoder(file, **(dict.fromkeys(given) if states_network(file) else given), prefix=None)
    compared = ("name", "channels", "arguments") if str(wanted["name"]).startswith("timm/") else tuple(wanted)
    differing = [key for key in compared if found.network.get(key) != wanted.get(key)]
    if differing:
        parts = [f"{key} {found.network.get(key)} where the run has {wanted.get(key)}" for key in differing]
        raise UserError(f"init={config.init} is another network than this run's backbone: {', '.join(parts)}.")
    return found


def account(config: Config, found: LoadedEncoder) -> str:
    """What became of the file's tensors, in a sentence."""
    left = f"left over: {listed(found.keys.left_over)}" if found.keys.left_over else "none left over"
    clauses = "".join(f"; {clause}" for clause in found.assumed)
    return f"backbones start from {config.init}: {len(found.keys.used)} tensors used; {left}{clauses}"


def description(found: LoadedEncoder) -> dict[str, Any]:
    """What the record holds of the file."""
    keys = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(found.keys).items()}
    return {"file": found.file.name, "sha256": sha256(found.file), "run": found.fingerprint, "keys": keys}


def _published(backbone: str) -> Path:
    """The file that timm has downloaded earlier; nothing is downloaded here."""
    if not backbone.startswith("timm/"):
        raise UserError(f"init=timm is for backbones of timm, and this is {backbone}: give a file, or timm/<model>.")
    model = backbone.removeprefix("timm/")
    try:
        from huggingface_hub import try_to_load_from_cache
        from timm.models import get_pretrained_cfg
    except ImportError:
        raise UserError(f"backbone {backbone} needs timm: pip install 'ssl-bench[timm]'.") from None
    about = get_pretrained_cfg(model)
    if about is None:
        raise UserError(f"init=timm: timm publishes no weights for {model}: give a file.")
    places = [Path(about.file)] if about.file else []
    if about.hf_hub_id:
        found = (try_to_load_from_cache(about.hf_hub_id, name) for name in HUB_FILES)
        places += [Path(path) for path in found if isinstance(path, str)]
    if about.url:
        places.append(Path(torch.hub.get_dir(), "checkpoints", str(about.url).rpartition("/")[2]))
    for place in places:
        if place.is_file():
            return place
    raise UserError(
        f"init=timm: the weights of {model} are not on this disk. Fetch them once where there is a network, by "
        f"python -c \"import timm; timm.create_model('{model}', pretrained=True)\", or give a file of them."
    )
