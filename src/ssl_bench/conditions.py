"""Checks on options and on combinations of them, each with one sentence: they need neither images nor PyTorch."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ssl_bench.errors import UserError

WEIGHTS = "init=FILE starts from weights, init=timm from those that timm has on this disk"
# What build_backbone or init= decides, among the arguments of timm's create_model.
OURS = {
    "in_chans": "it is the channels of the dataset",
    "num_classes": "there is no classifier",
    "features_only": "features are [N, F]",
    **dict.fromkeys(
        ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"), WEIGHTS
    ),
}
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


def require_a_step(accumulate: int, batch_size: int, images: int) -> None:
    """UserError unless the ``images`` of an epoch fill the batches of a step, which the learning rate may count."""
    batches = images // batch_size
    if accumulate > batches:
        raise UserError(
            f"trainer.accumulate={accumulate} is more than the batches of an epoch: {images} images make {batches} of "
            f"batch_size={batch_size}. Choose at most {batches}, or a smaller batch_size."
        )


def require_sizes(views: Mapping[str, int], size: int) -> None:
    """UserError if the views of a group have more pixels a side than the network is evaluated at, ``size``."""
    for name, side in views.items():
        if side > size:
            raise UserError(
                f"augment.groups.{name}.size={side} is larger than the {size} pixels at which the network is "
                "evaluated: choose at most that, or a larger dataset.size."
            )


def require_arguments(name: str, arguments: Mapping[str, Any], sizes: Iterable[int]) -> None:
    """UserError for ``backbone.arguments`` that the network ``name`` of images of these ``sizes`` cannot have."""
    if not name.startswith("timm/"):
        raise UserError(f"backbone.arguments are of timm's models, and {name} is none: set backbone.name=timm/<model>.")
    own = next((key for key in OURS if key in arguments), None)
    if own is not None:
        raise UserError(f"backbone.arguments.{own} is not allowed: {OURS[own]}.")
    patch = arguments.get("patch_size")
    if isinstance(patch, int) and patch > 0 and not arguments.get("dynamic_img_pad"):
        for size in sizes:
            require_whole_patches(f"backbone.name={name}", size, patch)


def require_whole_patches(name: str, size: int, patch: int) -> None:
    """UserError unless patches of ``patch`` pixels divide images of ``size`` pixels."""
    if size % patch:
        raise UserError(
            f"{name} cuts images of {size} pixels into patches of {patch}, which do not divide them: choose another "
            "backbone.arguments.patch_size, dataset.size or size of views."
        )


def full_size_views(sizes: Sequence[int]) -> int:
    """How many of the views, by their ``sizes`` in pixels, are of the largest size; these come first."""
    return sum(1 for _ in itertools.takewhile(lambda size: size == sizes[0], sizes))


def require_largest_first(sizes: Sequence[int]) -> None:
    """UserError unless the views of the largest size come first, in a row."""
    if not sizes:
        raise UserError("The augmentation recipe has no view groups; give it at least one.")
    if max(sizes[full_size_views(sizes) :], default=0) == sizes[0] or sizes[0] < max(sizes):
        raise UserError(f"The view groups' sizes are {list(sizes)}; put the largest views first.")


def require_views(method: str, sizes: Sequence[int], *, full_size: int, smaller: bool) -> None:
    """UserError unless there are so many full-size views, and smaller ones only where the ``method`` allows them."""
    found = full_size_views(sizes)
    if found != full_size:
        raise UserError(
            f"{method} needs {full_size} full-size view(s), but the augmentation makes {found} of {sizes[0]} pixels: "
            f"set augment.groups.global.count={full_size}, and smaller views, if any, to a size below that."
        )
    if len(sizes) > found and not smaller:
        raise UserError(
            f"{method} compares full-size views only, but the augmentation makes {len(sizes) - found} smaller "
            "ones as well: set augment.groups.local.count=0."
        )


def require_drawable(group: Mapping[str, Any]) -> None:
    """UserError where views cannot be drawn by the options of a ``group`` of them."""

    def require(name: str, rule: str, holds: bool) -> None:
        if not holds:
            value = tuple(group[name]) if isinstance(group[name], list) else group[name]
            raise UserError(f"The view group's {name} is {value}; set it to {rule}.")

    for name in ("count", "size"):
        require(name, "at least 1", group[name] >= 1)
    for name in ("flip", "jitter", "grayscale", "blur", "solarize", "solarize_threshold"):
        require(name, "between 0 and 1", 0 <= group[name] <= 1)
    for name in ("brightness", "contrast", "saturation"):
        require(name, "0 or more", group[name] >= 0)
    require("hue", "between 0 and 0.5", 0 <= group["hue"] <= 0.5)
    for name, highest in (("crop_scale", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
        pair = group[name]
        rule = "a range (low, high) with 0 < low ≤ high" + (" ≤ 1" if highest == 1 else "")
        require(name, rule, len(pair) == 2 and 0 < pair[0] <= pair[1] <= highest)


def require_batch_statistics(batch_size: int, images: int, views: Collection[int], *, concat_views: bool) -> None:
    """UserError unless BatchNorm sees two images or more where ``images`` of every view pass by themselves.

    views: their sizes in pixels; concat_views: those of one size pass together.
    """
    together = min(Counter(views).values()) if concat_views else 1
    if images * together < 2:
        raise UserError(
            f"batch_size={batch_size} leaves each device a single image, over which BatchNorm has no statistics: set "
            "trainer.sync_batchnorm=true, or batch_size to at least two images for each device."
        )


def require_gradients_apart(lookahead_batch: str, lookahead: int, accumulate: int) -> None:
    """UserError where the gradients of several runs of one batch would add up with those of other batches."""
    if lookahead_batch != "fresh" and lookahead > 1 and accumulate > 1:
        raise UserError(
            f"method.lookahead_batch={lookahead_batch} runs the same batch {lookahead} times, and gradient "
            "accumulation would pile up the gradients of these runs: use lookahead_batch=fresh or trainer.accumulate=1."
        )


def require_whole_pushes(queue: int, keys: int) -> None:
    """UserError unless a ``queue`` is a multiple of the ``keys`` that are pushed at once."""
    if queue < keys or queue % keys:
        raise UserError(
            f"method.queue={queue} is not a multiple of the {keys} keys that one batch enqueues: "
            f"choose {max(1, queue // keys) * keys}, or another batch_size."
        )


def require_own_sgd(method: str, optimizer: str, precision: str) -> None:
    """UserError where a ``method`` that trains instance weights of its own by SGD cannot do so.

    Muon's learning rates are of the order of SGD's, so that both can have the same.
    """
    if optimizer not in ("sgd", "muon"):
        raise UserError(
            f"{method} trains its instance weights by SGD, not {optimizer}: use optimizer.name=sgd or muon."
        )
    if precision == "16-mixed":
        raise UserError(
            f"{method} updates its instance weights outside the optimiser, where nobody undoes the scaling of "
            "16-mixed: use trainer.precision=bf16-mixed or 32-true."
        )


def require_protocols(names: Collection[str], linear: Collection[float], finetune: Collection[float]) -> None:
    """UserError if nothing would be scored; ``linear`` and ``finetune`` are learning rates."""
    keys = ("protocols", "linear.learning_rates", "finetune.learning_rates")
    for key, values in zip(keys, (names, linear, finetune), strict=True):
        if not values:
            raise UserError(f"evaluation.{key}=[] leaves nothing to score: name at least one.")


def require_channels(eval_on: str, theirs: int, dataset: str, ours: int) -> None:
    """UserError where the network of ``dataset`` has fewer channels than the images of ``eval_on``."""
    if ours < theirs:
        raise UserError(
            f"eval_on={eval_on} has images of {theirs} channels, but the network takes the {ours} of {dataset}: name a "
            "dataset with as many."
        )


def require_precision(precision: str, accelerator: str) -> None:
    """UserError for a precision that the ``accelerator`` has not."""
    if precision == "16-mixed" and accelerator == "cpu":
        raise UserError("trainer.precision=16-mixed needs a GPU: use bf16-mixed or 32-true on the CPU.")


def require_logger(name: str) -> None:
    """UserError unless the package behind ``logger=name`` is there."""
    if name != "none":
        require_libraries(f"logger={name}", [name], name, "or choose logger=none")


def require_libraries(option: str, packages: Iterable[str], extra: str, otherwise: str = "") -> None:
    """UserError unless the ``packages`` that an ``option`` needs are there; asks without importing them.

    extra: of ours, which installs them. otherwise: what else can be done.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{option} needs {' and '.join(missing)}, which is not installed: pip install 'ssl-bench[{extra}]'"
            + (f", {otherwise}." if otherwise else ".")
        )


def require_cards(devices: int, found: int) -> None:
    """UserError where fewer GPUs are ``found`` on this machine than ``trainer.devices``."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
    if not found:
        raise UserError(f"PyTorch finds no GPU here{seen}: set trainer.accelerator=cpu to run on the CPU.")
    if devices > found:
        raise UserError(
            f"trainer.devices={devices}, but PyTorch finds {found} CUDA device(s) here{seen}: set trainer.devices to "
            "at most that, or trainer.accelerator=cpu."
        )


def require_time_on_cpu(scale: str, takes: str) -> None:
    """UserError at the ``scale`` whose runs would occupy a CPU for weeks, unless a CPU is asked for by name.

    takes: how long a run takes, or how to find out.
    """
    if scale == "paper":
        raise UserError(
            f"scale=paper is made for a GPU, and PyTorch finds none ({takes}): set trainer.accelerator=cpu to train on "
            "the CPU all the same, or scale=cpu for minutes."
        )
