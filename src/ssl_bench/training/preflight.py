"""What is wrong with a run, or odd, by its options alone: answered before PyTorch is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ssl_bench import conditions
from ssl_bench.data.sizes import TRAIN
from ssl_bench.errors import UserError
from ssl_bench.machine import cores
from ssl_bench.training import loggers


def check(config: Mapping[str, Any]) -> None:
    """UserError, in one sentence, if no run of ``config`` could begin, whatever the machine and the images are."""
    trainer, dataset = config["trainer"], config["dataset"]
    conditions.require_root(dataset["name"], dataset.get("root"))
    conditions.require_equal_shares(config["batch_size"], trainer["devices"] * trainer["nodes"])
    # Validation images may leave less, which is known once labels are.
    images = [number for number in (TRAIN.get(dataset["name"]), config["subset"]) if number is not None]
    if images:
        conditions.require_a_batch(config["batch_size"], min(images))
    _check_limits(config, TRAIN.get(dataset["name"]))
    conditions.require_sizes(config["augment"]["groups"], dataset["size"])
    conditions.require_protocols(config["evaluation"])
    conditions.require_precision(trainer["precision"], trainer["accelerator"])
    loggers.check_installed(config["logger"]["name"])


def advice(config: Mapping[str, Any], images: int) -> Iterator[str]:
    """What lets a run begin and is seldom meant, in sentences; ``images`` are pretrained on."""
    queue, threads = config["method"].get("queue"), config["trainer"]["threads"]
    if queue is not None and queue > images:
        yield (
            f"method.queue={queue} is more than the {images:,} images, so that images meet earlier embeddings of their "
            "own in it: choose fewer by method.queue or dataset.queue."
        )
    if threads and threads > cores():
        yield f"trainer.threads={threads} is more than the {cores()} cores there are, which slows it down."


def _check_limits(config: Mapping[str, Any], images: int | None) -> None:
    """UserError if more images are asked for than the training split has."""
    for key in ("subset", "labels"):
        if images is not None and config[key] is not None and config[key] > images:
            raise UserError(
                f"{key}={config[key]} is more than the {images:,} training images of {config['dataset']['name']}: "
                "choose fewer, or null for all."
            )
