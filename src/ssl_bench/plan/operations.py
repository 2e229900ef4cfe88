"""The operations of training, counted and not measured: the same on every machine, and without any data."""

from __future__ import annotations

from ssl_bench.config.schema import Config
from ssl_bench.data import catalog
from ssl_bench.errors import UserError
from ssl_bench.training.operations import images_looked_at, of_an_image
from ssl_bench.training.preflight import pretraining_images


def of_training(config: Config) -> tuple[int, int]:
    """Images that a run looks at in training, each as often as it does, and the floating-point operations for them.

    Evaluation is not counted.

    Raises:
        UserError: for a dataset whose number of images is not known before it is read.
    """
    images = pretraining_images(config)
    if images is None:
        raise UserError(f"count=true knows published datasets only, and not the images of {config.dataset.name}.")
    seen = images_looked_at(config, images)
    return seen, seen * of_an_image(config, catalog.chosen(config.dataset))
