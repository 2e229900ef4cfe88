"""What options must be to one another, each in one sentence: known without images and without PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ssl_bench.errors import UserError

FEWEST = 2  # images of a batch: every loss compares images, or takes statistics over them
CHECKED_BATCH = 12  # images of a batch in the certificate, which 2, 3, 4, 6 and 12 processes divide


def require_equal_shares(batch_size: int, processes: int) -> None:
    """UserError unless every process gets equally many images of a batch."""
    if batch_size % processes:
        raise UserError(
            f"batch_size={batch_size} counts the images of all {processes} devices and cannot be divided equally among "
            f"them: choose a multiple of {processes}."
        )


def require_a_batch(batch_size: int, images: int) -> None:
    """UserError unless ``images`` fill a batch."""
    if batch_size > images:
        remedy = f"choose at most {images}, or more images" if images >= FEWEST else f"use {FEWEST} images at least"
        raise UserError(f"batch_size={batch_size} is larger than the {images} images to train on: {remedy}.")


def require_sizes(views: Mapping[str, Mapping[str, Any]], size: int) -> None:
    """UserError if a group of views is larger than the ``size`` pixels at which the network is evaluated."""
    for name, group in views.items():
        if group["count"] and group["size"] > size:
            raise UserError(
                f"augment.groups.{name}.size={group['size']} is larger than the {size} pixels at which the network is "
                "evaluated: choose at most that, or a larger dataset.size."
            )


def require_protocols(evaluation: Mapping[str, Any]) -> None:
    """UserError if nothing would be scored."""
    for key, values in (
        ("protocols", evaluation["protocols"]),
        ("linear.learning_rates", evaluation["linear"]["learning_rates"]),
    ):
        if not values:
            raise UserError(f"evaluation.{key}=[] leaves nothing to score: name at least one.")


def require_precision(precision: str, accelerator: str) -> None:
    """UserError for a precision that the ``accelerator`` has not."""
    if precision == "16-mixed" and accelerator == "cpu":
        raise UserError("trainer.precision=16-mixed needs a GPU: use bf16-mixed or 32-true on the CPU.")


def require_cards(devices: int, found: int) -> None:
    """UserError where fewer GPUs are ``found`` on this machine than ``trainer.devices``."""
    if devices > found:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
        raise UserError(
            f"trainer.devices={devices}, but PyTorch finds {found} CUDA device(s) here{seen}: set trainer.devices to "
            "at most that, or trainer.accelerator=cpu."
        )


def require_word(scale: str, takes: str) -> None:
    """UserError at the ``scale`` whose runs would occupy a CPU for weeks, unless a CPU is asked for by name.

    takes: how long a run takes, or how to find out.
    """
    if scale == "paper":
        raise UserError(
            f"scale=paper is made for a GPU, and PyTorch finds none ({takes}): set trainer.accelerator=cpu to train on "
            "the CPU all the same, or scale=cpu for minutes."
        )


def require_root(dataset: str, root: str | None) -> None:
    """UserError where a folder of pictures is asked for and none is named."""
    if dataset == "folder" and root is None:
        raise UserError("dataset=folder needs to know where the pictures are: set dataset.root=<folder>.")
