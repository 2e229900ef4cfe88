"""The operations of training, counted and not measured: the same on every machine, and without any data."""

from __future__ import annotations

from ssl_bench.config.experiments import passes_per_epoch
from ssl_bench.config.schema import Config
from ssl_bench.data import catalog
from ssl_bench.errors import UserError
from ssl_bench.training.build import build_method
from ssl_bench.training.needs import forward_operations
from ssl_bench.training.preflight import pretraining_images


def of_training(config: Config) -> tuple[int, int]:
    """Images that a run looks at in training, each as often as it does, and the floating-point operations for them.

    Of convolutions and matrix products, two for each multiply-add: the student's forward and backward passes, which
    cost three forward passes together, over all views, and the teacher's forward passes over the full-size ones. What
    is small beside the networks (views, predictor, loss, optimiser) and evaluation are not counted.

    Raises:
        UserError: for a dataset whose number of images is not known before it is read.
    """
    images = pretraining_images(config)
    if images is None:
        raise UserError(f"count=true knows published datasets only, and not the images of {config.dataset.name}.")
    # Built here and for here, which need not be the machine that will train.
    here = config.changed({"trainer.accelerator": "cpu", "trainer.compile": False})
    method = build_method(here, catalog.chosen(config.dataset))
    passes = config.epochs * passes_per_epoch(config)
    seen = images // config.batch_size * config.batch_size * passes
    if config.method.options.get("lookahead_batch", "fresh") != "fresh":  # the same images K times
        seen *= config.method.options["lookahead"]
    sizes, full_size = method.views.sizes, method.views.full_size
    channels = len(method.views.mean)
    forward = {size: forward_operations(method.student, channels, size) for size in set(sizes)}
    each = 3 * sum(forward[size] for size in sizes)
    if method.teacher is not None:
        each += sum(forward[size] for size in sizes[:full_size])
    return seen, seen * each
