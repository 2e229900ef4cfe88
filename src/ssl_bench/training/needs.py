"""What a run needs of this machine and of these images: room and labels."""

from __future__ import annotations

from rich.filesize import decimal

from ssl_bench.config.options import block_of
from ssl_bench.config.schema import Config
from ssl_bench.data.catalog import Dataset
from ssl_bench.data.datamodule import DataModule
from ssl_bench.devices import resolve_device
from ssl_bench.errors import UserError
from ssl_bench.machine import memory


def require_room(config: Config, dataset: Dataset) -> None:
    """UserError where not even the images of a batch, as the network sees them, fit into a CPU's memory."""
    if resolve_device(config.trainer.accelerator).type != "cpu":
        return
    side = config.dataset.size
    pixels = sum(views.count * views.size**2 for views in config.augment.groups.values())  # of all views of an image
    for key, images, each in (
        ("batch_size", config.batch_size // config.trainer.nodes, pixels),
        ("evaluation.batch_size", config.evaluation.batch_size, side**2),
    ):
        needed = 4 * dataset.channels * images * each  # float32
        if needed > memory():
            raise UserError(
                f"{key}={images} images at dataset.size={side} pixels need {decimal(needed)} of memory, more than "
                f"there is: choose a smaller dataset.size or {key}."
            )


def require_labels(config: Config, data: DataModule) -> None:
    """UserError where a method that learns classes has none, no image whose class is known, or too few outputs."""
    if not block_of(config.method.name, "needs").get("labels"):
        return
    classes, labels = data.dataset.classes, data.splits["train"].labels[data.parts.pretraining]
    if classes < 2 or not (labels >= 0).any():
        lacking = "none of its images has a label" if classes > 1 else f"it has {classes} class(es)"
        raise UserError(
            f"method={config.method.name} learns classes, and cannot on dataset={data.dataset.name}: {lacking}."
        )
    outputs = config.method.projector.out
    if outputs is not None and outputs < classes:
        raise UserError(
            f"method.projector.out={outputs} is less than the {classes} classes of dataset={data.dataset.name}: "
            "leave it out, or set it to as many or more."
        )
