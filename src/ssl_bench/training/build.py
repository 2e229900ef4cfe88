"""From plain numbers to parts: images, networks, methods, protocols."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_bench import devices
from ssl_bench.augment.draws import ViewGroup
from ssl_bench.augment.views import CleanView, Views
from ssl_bench.conditions import require_a_batch, require_a_step, require_protocols, require_sizes
from ssl_bench.config.schema import Config
from ssl_bench.data import catalog
from ssl_bench.data.catalog import Dataset
from ssl_bench.data.datamodule import DataModule
from ssl_bench.data.delivery import free_memory
from ssl_bench.data.orders import Window
from ssl_bench.devices import device_type, resolve_precision
from ssl_bench.distributed import on_rank_zero, world_size
from ssl_bench.errors import UserError
from ssl_bench.evaluation.baselines import kept, random_scores, versions
from ssl_bench.evaluation.evaluator import Evaluator, Scores
from ssl_bench.evaluation.features import THUMBNAIL
from ssl_bench.evaluation.finetune import FineTuning
from ssl_bench.evaluation.linear import LinearProbe
from ssl_bench.evaluation.protocols import protocols, with_top5
from ssl_bench.evaluation.score import Protocol
from ssl_bench.methods.base import Method, Network, Parts
from ssl_bench.nn.backbone import build_backbone, require_size
from ssl_bench.nn.heads import mlp
from ssl_bench.optim import Recipe
from ssl_bench.results.code import code_digest
from ssl_bench.results.fingerprint import NUMERICS, fingerprint
from ssl_bench.training import initial
from ssl_bench.training.needs import require_room


def build(config: Config) -> tuple[Method, DataModule]:
    """The method and its images, ready for any ``pytorch_lightning.Trainer``."""
    data = build_data(config)
    return build_method(config, data.dataset, data), data


def build_data(config: Config) -> DataModule:
    order = config.order
    return DataModule(
        dataset=catalog.chosen(config.dataset),
        data_dir=config.data_dir,
        batch_size=config.batch_size,
        evaluation_batch_size=config.evaluation.batch_size,
        seed=config.seed,
        subset=config.subset,
        labels=config.labels,
        hold_out_validation=config.scale.hold_out_validation,
        window=Window(order.window, order.strides) if order.name == "window" else None,
        resident=config.dataset.resident,
    )


def build_method(config: Config, dataset: Dataset, data: DataModule | None = None) -> Method:
    """The method, with weights that depend on the seed alone.

    ``data`` is read for methods that keep something for every image: those with a key ``instances``.
    """
    require_room(config, dataset)
    options = dict(config.method.options)
    if "instances" in options:
        options["instances"] = data.parts.pretraining if data else torch.arange(dataset.train)
    accumulate = config.trainer.accumulate
    if data:
        require_a_batch(config.batch_size, len(data.parts.pretraining))
        require_a_step(accumulate, config.batch_size, len(data.parts.pretraining))
    module, _, name = config.method.target.rpartition(".")
    with _seeded(config.seed):
        student, width = _network(config, dataset)
        if "predictor" in options:
            options["predictor"] = mlp(width, outputs=width, output_norm=False, **options["predictor"])
        teacher = None
        if options.pop("teacher_init", "copy") == "independent":
            teacher = _network(config, dataset)[0].to(memory_format=torch.channels_last)
        parts = Parts(
            backbone=student.backbone,
            projector=student.projector,
            width=width,
            views=build_views(config, dataset),
            optimizer=Recipe(**config.optimizer.as_dict(), batch_size=config.batch_size, accumulate=accumulate),
            concat_views=config.method.concat_views,
            teacher_init=teacher,
        )
        made = getattr(importlib.import_module(module), name)
        try:
            inspect.signature(made).bind(parts, **options)
        except TypeError as error:
            raise UserError(
                f"conf/method/{config.method.name}.yaml does not fit its class, whose constructor is to take parts and "
                f"the file's options: {error}."
            ) from None
        method: Method = made(parts, **options)
    if config.trainer.compile:
        method.compile_networks(devices.BACKEND)
    return method


def random_network(arguments: dict[str, Any], seed: int) -> nn.Module:
    """What ``build_backbone(**arguments)`` gives under ``seed``."""
    with _seeded(seed):
        return build_backbone(**arguments)[0].to(memory_format=torch.channels_last)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _backbone(config: Config, dataset: Dataset) -> tuple[nn.Module, int]:
    network, width = build_backbone(**config.backbone.as_dict(), channels=dataset.channels)
    name = config.backbone.name
    if name.startswith("timm/"):  # some take one size only, and refuse another when they see it
        for size in {config.dataset.size, *config.augment.sizes.values()}:
            require_size(network, f"backbone.name={name}", dataset.channels, size)
    start = initial.load(config, dataset.channels)
    if start is not None:
        network.load_state_dict(start.backbone.state_dict())
    return network, width


def _network(config: Config, dataset: Dataset) -> tuple[Network, int]:
    """Backbone and projector, and the embedding width."""
    backbone, width = _backbone(config, dataset)
    head = config.method.projector
    outputs = head.out or dataset.classes
    projector = mlp(width, head.hidden, outputs, head.layers, output_norm=bool(head.output_norm))
    return Network(backbone, projector), outputs if head.layers else width


def build_views(config: Config, dataset: Dataset) -> Views:
    """The views that training draws."""
    recipe = config.augment
    require_sizes(recipe.sizes, config.dataset.size)
    groups = [ViewGroup(**_tuples(group)) for group in recipe.view_groups]
    return Views(groups, dataset.mean, dataset.std, recipe.chunk)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def clean_arguments(config: Config, dataset: Dataset) -> dict[str, Any]:
    """Arguments of the clean view, as an encoder's file keeps them."""
    size, crop = config.dataset.size, config.dataset.clean_crop
    return {"size": size, "crop": crop, "mean": list(dataset.mean), "std": list(dataset.std)}


def build_protocols(config: Config, classes: int, *, refit: bool) -> list[Protocol]:
    """All protocols that the table, the curves and the monitor name; ``refit`` is the linear probe's.

    classes: of the dataset.
    """
    chosen = config.evaluation
    require_protocols(chosen.protocols, chosen.linear.learning_rates, chosen.finetune.learning_rates)
    names = dict.fromkeys([*with_top5(chosen.protocols, classes), *chosen.curves, chosen.monitor])
    probe = LinearProbe(**vars(chosen.linear), seed=0)
    return protocols(list(names), probe, FineTuning(**vars(chosen.finetune)), refit=refit)


def fingerprint_of(config: Config, data_digest: str) -> str:
    """The name of the run that ``config`` makes of images with this digest, on this machine's devices."""
    chosen = config.trainer
    return fingerprint(
        config.as_dict(),
        data_digest=data_digest,
        precision=resolve_precision(config.trainer.precision, config.trainer.accelerator),
        device=device_type(config.trainer.accelerator),
        statistics_shares=1 if chosen.sync_batchnorm else chosen.processes,
        init=initial.digest(config),
    )


def build_evaluator(config: Config, data: DataModule, clean: dict[str, Any]) -> Evaluator:
    """All protocols on the images of ``data``; ``clean``: arguments of the clean view.

    Where a limit keeps labels from the probe, those of validation images are not trained on either.
    """
    labelled = int((data.splits["train"].labels >= 0).sum())
    limited = len(data.parts.probe) + len(data.parts.validation) < labelled
    return Evaluator(
        clean=CleanView(**clean),
        loaders={"bank": data.bank, "probe": data.probe, "validation": data.validation, "test": data.test},
        protocols=build_protocols(config, data.dataset.classes, refit=not limited),
        classes=data.dataset.classes,
        memory=config.evaluation.memory,
        drawn=data.drawn,
    )


def baseline_scores(
    config: Config,
    data: DataModule,
    evaluator: Evaluator,
    device: torch.device,
    *,
    network: dict[str, Any],
    clean: dict[str, Any],
) -> dict[str, Scores]:
    """Random weights and raw pixels on test images, as ``runs_dir`` keeps them or scored now.

    network: arguments of the backbone; clean: of the clean view.
    """
    folder = Path(config.runs_dir) / "baselines"
    found = baselines(config, data, evaluator, device, network=network, clean=clean)
    return {name: kept(folder, identity, compute) for name, (identity, compute) in found.items()}


Baseline = tuple[dict[str, Any], Callable[[], Scores]]


def baselines(
    config: Config,
    data: DataModule,
    evaluator: Evaluator,
    device: torch.device,
    *,
    network: dict[str, Any],
    clean: dict[str, Any],
) -> dict[str, Baseline]:
    """For each baseline all that its scores depend on, and what computes them."""
    names = with_top5(config.evaluation.protocols, evaluator.classes)
    common = {
        "code": code_digest(f"{__name__}.{baseline_scores.__name__}"),
        "numerics": NUMERICS,
        "data": data.digest,
        "protocols": [repr(evaluator.protocols[name]) for name in names],
        # What digits may depend on, as those of a run do.
        "batch_size": config.evaluation.batch_size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "processes": world_size(),
        "torch": torch.__version__,
    }

    def score_random() -> Scores:
        backbone = random_network(network, config.seed)
        return random_scores(backbone, evaluator, data.bank(whole=True), device, names)

    def score_pixels() -> Scores:
        values = min(config.dataset.size, THUMBNAIL) ** 2 * data.dataset.channels
        needed = 4 * 4 * values * sum(map(len, data.splits.values()))  # float32, and the probe's copies
        room = on_rank_zero(lambda: free_memory(device))
        place = device if room is None or needed <= room else torch.device("cpu")
        return evaluator.score(evaluator.pixels(place), names, "test")

    version = versions(config.dataset.size)
    random = {"baseline": "random", "network": network, "clean": clean, "seed": config.seed}
    return {
        "random": ({**common, **random, "version": version["random"]}, score_random),
        "pixels": ({**common, "baseline": "pixels", "version": version["pixels"]}, score_pixels),
    }
