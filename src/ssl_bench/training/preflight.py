"""What is wrong with a run, or odd, by its options alone: answered before PyTorch is imported."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_bench import conditions
from ssl_bench.config.options import block_of, nearest
from ssl_bench.config.schema import Config
from ssl_bench.config.settings import near_or_all
from ssl_bench.data.facts import FACTS, STL10, STL10_HELD_OUT, require_root
from ssl_bench.errors import UserError
from ssl_bench.machine import cores

NEEDS = ("full_size_views", "smaller_views", "batches_at_once", "labels", "own_sgd")  # that a method's file may state


def check(config: Config) -> None:
    """UserError, in one sentence, if no run of ``config`` could begin, whatever the machine and the images are."""
    trainer, dataset = config.trainer, config.dataset
    if config.init not in (None, "timm") and not Path(str(config.init)).exists():
        raise UserError(f"init={config.init} does not exist: give a run's folder, a file of weights, or timm.")
    require_root(dataset.name, dataset.options)
    if config.eval_on is not None:
        _check_second(config.eval_on, dataset.name)
    conditions.require_equal_shares(config.batch_size, trainer.processes)
    _check_limits(config, _train_images(dataset.name))
    images = pretraining_images(config)
    if images is not None:
        conditions.require_a_batch(config.batch_size, images)
        conditions.require_a_step(trainer.accumulate, config.batch_size, images)
    _check_views(config)
    if config.backbone.arguments:
        sizes = {dataset.size, *config.augment.sizes.values()}
        conditions.require_arguments(config.backbone.name, config.backbone.arguments, sorted(sizes))
    options = config.method.options
    if trainer.processes > 1 and not trainer.sync_batchnorm:
        conditions.require_batch_statistics(
            config.batch_size,
            config.batch_size // trainer.processes,
            config.augment.view_sizes,
            concat_views=config.method.concat_views and not _normalises_apart(options),
        )
    if "lookahead_batch" in options:
        conditions.require_gradients_apart(options["lookahead_batch"], options["lookahead"], trainer.accumulate)
    _check_target(config)
    _check_needs(config)
    scored = config.evaluation
    conditions.require_protocols(scored.protocols, scored.linear.learning_rates, scored.finetune.learning_rates)
    conditions.require_precision(trainer.precision, trainer.accelerator)
    conditions.require_logger(config.logger.name)


def advice(config: Config, images: int) -> Iterator[str]:
    """What lets a run begin and is seldom meant, in sentences; ``images`` are pretrained on."""
    trainer, options = config.trainer, config.method.options
    queue = options.get("queue")
    if queue is not None and queue > images:
        yield (
            f"method.queue={queue} is more than the {images:,} images, so that images meet earlier embeddings of their "
            "own in it: choose fewer by method.queue or dataset.queue."
        )
    if queue is not None and "queue_from" in options:  # read only once it is full
        each, fill = images // config.batch_size, queue // config.batch_size
        if max((options["queue_from"] - 1) * each, fill) >= config.epochs * each:
            yield (
                f"method.queue={queue} is never read: it would be from epoch method.queue_from={options['queue_from']} "
                f"on, once {fill} batches have filled it, and there are {config.epochs} epochs of {each}."
            )
    if options.get("freeze_epochs", 0) >= config.epochs:
        yield (
            f"method.freeze_epochs={options['freeze_epochs']} lets the prototypes rest in all of the "
            f"epochs={config.epochs}: they stay random."
        )
    if trainer.compile and trainer.sync_batchnorm and trainer.processes > 1:
        yield (
            "trainer.compile=true compiles only what lies between norms that several devices share: "
            "trainer.sync_batchnorm=false compiles networks whole."
        )
    if trainer.threads and trainer.threads > cores():
        yield f"trainer.threads={trainer.threads} is more than the {cores()} cores there are, which slows it down."


def _check_second(eval_on: str, dataset: str) -> None:
    """UserError where the curves cannot have this dataset, too."""
    if eval_on == dataset:
        raise UserError(f"eval_on={eval_on} is the dataset of the run, whose curves are there: name another, or none.")
    if dataset in FACTS:
        conditions.require_channels(eval_on, FACTS[eval_on].channels, dataset, FACTS[dataset].channels)


def _train_images(dataset: str) -> int | None:
    """Images of the official training split; None where they are not known beforehand."""
    return FACTS[dataset].train or None if dataset in FACTS else None


def pretraining_images(config: Config) -> int | None:
    """How many images are pretrained on, at most where it is not known which are held out; None for unknown."""
    name, options = config.dataset.name, config.dataset.options
    images, held_out = _train_images(name), (FACTS[name].held_out or 0) if name in FACTS else 0
    if name == "stl10":
        kind = "all" if options["fold"] is None else "fold"
        images, held_out = STL10[options["split"]], STL10_HELD_OUT[kind] if options["split"] != "unlabeled" else 0
    if images is not None and config.scale.hold_out_validation:
        images -= held_out
    return min((limit for limit in (images, config.subset) if limit is not None), default=None)


def _check_views(config: Config) -> None:
    conditions.require_sizes(config.augment.sizes, config.dataset.size)
    for group in config.augment.view_groups:
        conditions.require_drawable(group)
    conditions.require_largest_first(config.augment.view_sizes)


def _check_target(config: Config) -> None:
    """UserError where the method's class is not to be found; nothing is imported."""
    module, _, name = str(config.method.target).rpartition(".")
    where = f"conf/method/{config.method.name}.yaml: target {config.method.target}"
    if not module:
        raise UserError(f"{where} is to name a module and a class in it, as in my_method.Mine.")
    try:
        found = _classes(module)
    except (ImportError, ValueError):
        raise UserError(f"{where}: there is no module {module} beside conf/, and none is installed.") from None
    if found is not None and name not in found:
        raise UserError(f"{where}: {module} has no class {name}{nearest(name, found) or '.'}")


@functools.cache
def _classes(module: str) -> tuple[str, ...] | None:
    """The names that a module defines or imports; None without its source, or where it imports names by ``*``."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ImportError(module)
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        statements = list(_statements(ast.parse(Path(spec.origin).read_bytes()).body))
    except SyntaxError as error:
        raise UserError(f"{spec.origin}, line {error.lineno}: {error.msg}.") from None
    imported = [alias for node in statements if isinstance(node, ast.ImportFrom) for alias in node.names]
    if any(alias.name == "*" for alias in imported):
        return None
    classes = (node.name for node in statements if isinstance(node, ast.ClassDef))
    targets = (target for node in statements if isinstance(node, ast.Assign) for target in node.targets)
    assigned = (target.id for target in targets if isinstance(target, ast.Name))
    return (*classes, *(alias.asname or alias.name for alias in imported), *assigned)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Those that are executed when a module is imported, in the branches of ``if`` and ``try``, too."""
    for statement in body:
        yield statement
        if isinstance(statement, (ast.If, ast.Try)):
            yield from _statements([*statement.body, *statement.orelse])
        if isinstance(statement, ast.Try):
            yield from _statements(statement.finalbody)
            for handler in statement.handlers:
                yield from _statements(handler.body)


def _normalises_apart(options: Mapping[str, Any]) -> bool:
    """Whether the method's predictor is a perceptron with BatchNorm, which takes one view at a time."""
    predictor = options.get("predictor")
    used = options.get("kind", "two_layer") == "two_layer"  # DirectPred's others are one linear layer
    return used and isinstance(predictor, Mapping) and predictor.get("layers", 0) > 1


def _check_needs(config: Config) -> None:
    """UserError where the method's class would refuse, whose needs its file states."""
    options, needs = config.method.options, block_of(config.method.name, "needs")
    name = config.method.target.rpartition(".")[2]
    for key in needs:
        if key not in NEEDS:
            raise UserError(f"conf/method/{config.method.name}.yaml: needs, {key} is unknown{near_or_all(key, NEEDS)}")
    if needs.get("full_size_views"):
        smaller = needs.get("smaller_views", False)
        conditions.require_views(name, config.augment.view_sizes, full_size=needs["full_size_views"], smaller=smaller)
    if needs.get("batches_at_once") and options.get("queue") is not None:
        conditions.require_whole_pushes(options["queue"], needs["batches_at_once"] * config.batch_size)
    if needs.get("own_sgd"):
        conditions.require_own_sgd(name, config.optimizer.name, config.trainer.precision)


def _check_limits(config: Config, images: int | None) -> None:
    """UserError if more images are asked for than the training split has."""
    for key, wanted in (("subset", config.subset), ("labels", config.labels)):
        if images is not None and wanted is not None and wanted > images:
            raise UserError(
                f"{key}={wanted} is more than the {images:,} training images of {config.dataset.name}: "
                "choose fewer, or null for all."
            )
