"""The encoder that ``embed`` and ``export`` are given, by the options that both have."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssl_bench.data import catalog
from ssl_bench.data.catalog import Dataset
from ssl_bench.errors import UserError
from ssl_bench.results.weights import LoadedEncoder, open_encoder


def load(
    run_or_file: Path, settings: Mapping[str, Any], show: Callable[[str], object]
) -> tuple[LoadedEncoder, dict[str, Any], str]:
    """The encoder, the arguments of its clean view, and whose mean and standard deviation these hold.

    What was assumed of a file that is not ours is shown. UserError for a wrong file, or a size that it does not take.
    """
    encoder = open_encoder(
        run_or_file,
        name=settings["backbone"],
        stem=settings["stem"],
        width=None,
        prefix=settings["prefix"],
        arguments=settings["arguments"] or None,
    )
    for clause in encoder.assumed:
        show(f"assumed: {clause}")
    clean, whose = encoder_clean(encoder, size=settings["size"], crop=settings["crop"], statistics="auto", dataset=None)
    encoder.require_size(clean["size"])
    return encoder, clean, whose


def encoder_clean(
    encoder: LoadedEncoder, *, size: int | None, crop: float | None, statistics: str, dataset: Dataset | None
) -> tuple[dict[str, Any], str]:
    """Arguments of an encoder's clean view, and whose mean and standard deviation they hold, in words.

    size and crop: None for what its file states. statistics: ``dataset``, ``imagenet``, or ``auto`` for the file's,
    else those that timm publishes for the model, else ImageNet's for three channels and the dataset's for one. Raises
    UserError where the file is asked and does not state it, and for statistics of more channels than the network has.
    """
    clean = dict(encoder.clean or {"crop": 1.0})
    clean |= {key: value for key, value in (("size", size), ("crop", crop)) if value is not None}
    if "size" not in clean:
        raise UserError(f"{encoder.file} does not state for images of which size it is: set size, as in size=224.")
    if statistics == "auto" and encoder.dataset in catalog.DATASETS:
        trained = catalog.DATASETS[encoder.dataset]
        return {**clean, "mean": list(trained.mean), "std": list(trained.std)}, "its run's"
    if statistics == "auto" and encoder.dataset is not None:
        raise UserError(
            f"{encoder.file} is a checkpoint of a run on {encoder.dataset}, and does not state by what it normalises: "
            "give the run's folder or its encoder.safetensors, which does."
        )
    if statistics == "auto" and encoder.clean:
        return clean, "its file's"
    if statistics == "auto" and encoder.statistics:
        clean["mean"], clean["std"] = encoder.statistics
        return clean, "timm's for the model"
    if statistics == "imagenet" or (statistics == "auto" and encoder.channels == 3):
        if encoder.channels != 3:
            raise UserError(f"statistics=imagenet are of three channels, but the network has {encoder.channels}.")
        imagenet = catalog.DATASETS["imagenet100"]
        return {**clean, "mean": list(imagenet.mean), "std": list(imagenet.std)}, "ImageNet's"
    if dataset is None:
        raise UserError(
            f"{encoder.file} does not state by what it normalises images of "
            f"{encoder.channels} channel(s), and ImageNet's statistics are of three: evaluate takes those of a dataset."
        )
    repeated = encoder.channels // len(dataset.mean)
    return {**clean, "mean": [*dataset.mean] * repeated, "std": [*dataset.std] * repeated}, f"those of {dataset.name}"
