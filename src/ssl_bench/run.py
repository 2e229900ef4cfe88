"""One run, read top to bottom: build → pretrain → evaluate → record."""

from __future__ import annotations

import importlib
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from rich.console import Console
from torch import nn

from ssl_bench import loggers
from ssl_bench.augment.views import CleanView, ViewGroup, Views
from ssl_bench.callbacks.accuracy_monitor import AccuracyMonitor
from ssl_bench.callbacks.checkpointer import Checkpointer, WholeCheckpointIO, read_checkpoint
from ssl_bench.callbacks.collapse_monitor import CollapseMonitor
from ssl_bench.callbacks.finite_loss import FiniteLoss
from ssl_bench.callbacks.progress import TrainingProgress
from ssl_bench.callbacks.recorder import Recorder
from ssl_bench.callbacks.timing import Timing
from ssl_bench.config import Config
from ssl_bench.data.catalog import Dataset
from ssl_bench.data.datamodule import DataModule
from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluator import Evaluator, Scores
from ssl_bench.evaluation.linear import LinearProbe
from ssl_bench.evaluation.protocols import Protocol, protocols
from ssl_bench.methods.base import Method, Network
from ssl_bench.nn.backbone import build_backbone, recalibrate
from ssl_bench.nn.heads import mlp
from ssl_bench.optim import SGD
from ssl_bench.report.figures import tsne_picture
from ssl_bench.report.tables import run_table
from ssl_bench.results.encoder import save_encoder
from ssl_bench.results.files import write_text, write_whole
from ssl_bench.results.fingerprint import NUMERICS, fingerprint
from ssl_bench.results.history import History
from ssl_bench.results.record import code_version, environment, peak_memory, write_record
from ssl_bench.results.store import RunFolder

CALIBRATION_IMAGES = 2048  # for the BatchNorm statistics of random weights
PICTURE_IMAGES = 1000


def run(config: Config, watchers: Sequence[pl.Callback] = ()) -> dict[str, Any]:
    """Do what ``config`` says, unless its folder holds the result already; returns the record.

    ``watchers`` see the training before the run's own callbacks do.
    """
    _quiet()
    console = Console()
    if config["trainer"]["threads"]:
        torch.set_num_threads(config["trainer"]["threads"])
    loggers.check_installed(config["logger"]["name"])
    data = build_data(config)
    data.setup()
    precision = resolve_precision(config)
    name = fingerprint(config, data_digest=data.digest, precision=precision)
    folder = RunFolder(Path(config["runs_dir"]) / name)
    with folder.locked():
        record = folder.finished()
        if record is None:
            record = _run(config, data, precision, folder, console, watchers)
        else:
            console.print(f"Finished before: {folder.path}")
    console.print(run_table(record))
    console.print(f"{folder.path}  ·  picture: {folder.picture}", highlight=False, soft_wrap=True)
    return record


def _quiet() -> None:
    """Keep the libraries' advice and deprecations of their own making away from the user's terminal."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")


# -- build ----------------------------------------------------------------------------------------


def build(config: Config) -> tuple[Method, DataModule]:
    """The method and its images, ready for any ``pytorch_lightning.Trainer``."""
    data = build_data(config)
    return build_method(config, data.dataset), data


def build_data(config: Config) -> DataModule:
    return DataModule(
        name=config["dataset"]["name"],
        data_dir=config["data_dir"],
        batch_size=config["batch_size"],
        evaluation_batch_size=config["evaluation"]["batch_size"],
        seed=config["seed"],
        subset=config["subset"],
        labels=config["labels"],
        hold_out_validation=config["scale"]["hold_out_validation"],
    )


def build_method(config: Config, dataset: Dataset) -> Method:
    """The method, with weights that depend on the seed alone."""
    options = {key: value for key, value in config["method"].items() if key not in ("name", "target", "projector")}
    with _seeded(config["seed"]):
        student, width = _network(config, dataset)
        if "predictor" in options:
            options["predictor"] = mlp(width, outputs=width, **options["predictor"])
        if "teacher_init" in options:
            options["teacher_init"] = _network(config, dataset)[0] if options["teacher_init"] == "independent" else None
    module, _, name = config["method"]["target"].rpartition(".")
    method: Method = getattr(importlib.import_module(module), name)(
        backbone=student.backbone,
        projector=student.projector,
        views=_views(config, dataset),
        optimizer=SGD(**config["optimizer"], batch_size=config["batch_size"]),
        **options,
    )
    return method


def random_backbone(config: Config, dataset: Dataset) -> nn.Module:
    """The backbone as it was before training: the first thing the seed draws."""
    with _seeded(config["seed"]):
        return _backbone(config, dataset)[0].to(memory_format=torch.channels_last)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _backbone(config: Config, dataset: Dataset) -> tuple[nn.Module, int]:
    return build_backbone(**config["backbone"], channels=dataset.channels)


def _network(config: Config, dataset: Dataset) -> tuple[Network, int]:
    """Backbone and projector, and the embedding width."""
    backbone, width = _backbone(config, dataset)
    head = config["method"]["projector"]
    outputs = head["out"] or dataset.classes
    projector = mlp(width, head["hidden"], outputs, head["layers"])
    return Network(backbone, projector), outputs if head["layers"] else width


def _views(config: Config, dataset: Dataset) -> Views:
    recipe = config["augment"]
    groups = [ViewGroup(**_tuples(group)) for group in recipe["groups"].values()]
    return Views(groups, dataset.mean, dataset.std, recipe["chunk"])


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _clean(config: Config, dataset: Dataset) -> dict[str, Any]:
    """Arguments of the clean view, as an encoder's file keeps them."""
    size, crop = config["dataset"]["size"], config["dataset"]["clean_crop"]
    return {"size": size, "crop": crop, "mean": list(dataset.mean), "std": list(dataset.std)}


def _protocols(config: Config) -> list[Protocol]:
    """All protocols that the table, the curves and the monitor name."""
    chosen = config["evaluation"]
    names = dict.fromkeys([*chosen["protocols"], *chosen["curves"], chosen["monitor"]])
    probe = LinearProbe(**_tuples(chosen["linear"]), seed=0)
    return protocols(list(names), probe, refit=config["labels"] is None)


def resolve_precision(config: Config) -> str:
    """``auto`` as bf16-mixed where the device computes faster in it, else 32-true."""
    wanted: str = config["trainer"]["precision"]
    if wanted == "16-mixed" and _accelerator(config) == "cpu":
        raise UserError("trainer.precision=16-mixed needs a GPU: use bf16-mixed or 32-true on the CPU.")
    if wanted != "auto":
        return wanted
    accelerator = _accelerator(config)
    fast = torch.cuda.is_bf16_supported() if accelerator == "gpu" else accelerator == "cpu" and has_fast_bfloat16()
    return "bf16-mixed" if fast else "32-true"


def has_fast_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; emulated it is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _accelerator(config: Config) -> str:
    wanted: str = config["trainer"]["accelerator"]
    if wanted != "auto":
        return wanted
    return "gpu" if torch.cuda.is_available() else "cpu"


# -- pretrain → evaluate → record -----------------------------------------------------------------


def _run(
    config: Config,
    data: DataModule,
    precision: str,
    folder: RunFolder,
    console: Console,
    watchers: Sequence[pl.Callback],
) -> dict[str, Any]:
    started = time.perf_counter()
    warned: list[str] = []

    def tell(sentence: str) -> None:
        console.print(f"warning: {sentence}", style="yellow", highlight=False)

    def warn(sentence: str) -> None:
        warned.append(sentence)
        tell(sentence)

    dataset = data.dataset
    checkpoint = read_checkpoint(folder.checkpoint, folder.fingerprint)
    write_text(folder.config, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    method = build_method(config, dataset)
    epochs = config["epochs"] * method.passes_per_epoch
    history, timing = History(), Timing()
    evaluator = Evaluator(
        clean=CleanView(**_clean(config, dataset)),
        loaders={"bank": data.bank, "probe": data.probe, "validation": data.validation, "test": data.test},
        protocols=_protocols(config),
        classes=dataset.classes,
        memory=config["evaluation"]["memory"],
    )
    logger = loggers.build_logger(config, folder=folder.path, fingerprint=folder.fingerprint, warn=tell)
    checkpointer = Checkpointer(
        folder.checkpoint, fingerprint=folder.fingerprint, every_seconds=config["trainer"]["checkpoint_seconds"]
    )
    recorder = Recorder(history, folder.metrics, timing, logger)
    monitor = f"validation/{config['evaluation']['monitor']}/{method.evaluated}"
    callbacks: list[pl.Callback] = [
        *watchers,
        timing,
        FiniteLoss(),
        CollapseMonitor(history, warn),
        AccuracyMonitor(
            evaluator,
            history,
            monitor=config["evaluation"]["monitor"],
            monitor_every=config["monitor_every"],
            curves=config["evaluation"]["curves"],
            curves_every=config["eval_every"],
        ),
        recorder,
        *([TrainingProgress(console, history, timing, monitor)] if config["trainer"]["progress"] else []),
        checkpointer,
    ]
    console.print(
        f"{config['method']['name']} on {len(data.parts.pretraining):,} images of {dataset.name}, {epochs} epochs, "
        f"{precision}" + (f", going on after step {checkpoint['global_step']}" if checkpoint else ""),
        highlight=False,
    )
    trainer = pl.Trainer(
        accelerator=_accelerator(config),
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=epochs,
        accumulate_grad_batches=config["trainer"]["accumulate"],
        gradient_clip_val=config["trainer"]["clip"],
        logger=False,
        callbacks=callbacks,
        plugins=[WholeCheckpointIO()],
        default_root_dir=folder.path,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, datamodule=data, ckpt_path=folder.checkpoint if checkpoint else None)

    console.print("evaluating", highlight=False)
    scores = _evaluate(config, dataset, method, evaluator, data, folder, console)
    results = {network: {name: score.percent for name, score in found.items()} for network, found in scores.items()}
    write_whole(folder.predictions, lambda temporary: np.savez_compressed(temporary, **_predictions(scores, data)))
    record = {
        "method": config["method"]["name"],
        "dataset": dataset.name,
        "scale": config["scale"]["name"],
        "seed": config["seed"],
        "fingerprint": folder.fingerprint,
        "evaluated": method.evaluated,
        "results": results,
        "protocols": {name: protocol.version for name, protocol in evaluator.protocols.items()},
        "notes": {
            net: {name: score.notes for name, score in found.items() if score.notes} for net, found in scores.items()
        },
        "curves": _curves(history),
        "warnings": warned,
        "numerics": NUMERICS,
        "precision": precision,
        "batch_statistics": "global",
        "data_digest": data.digest,
        "images": {part: len(getattr(data.parts, part)) for part in ("pretraining", "bank", "probe", "validation")}
        | {"test": len(data.splits["test"])},
        "student_steps": method.student_steps,
        "train_seconds": round(timing.seconds, 2),
        "images_per_second": round(timing.images_per_second, 1),
        "session_seconds": round(time.perf_counter() - started, 2),
        "peak_memory_bytes": peak_memory(),
        "code": code_version(),
        "environment": environment(),
        "config": {key: value for key, value in config.items() if key not in ("runs_dir", "data_dir")},
    }
    write_record(folder.record, record)
    logger.log_results(results, folder.picture)
    logger.close()
    return record


def _evaluate(
    config: Config,
    dataset: Dataset,
    method: Method,
    evaluator: Evaluator,
    data: DataModule,
    folder: RunFolder,
    console: Console,
) -> dict[str, Scores]:
    """The final table: trained networks, random weights and raw pixels under the same protocols, on test images."""
    names = config["evaluation"]["protocols"]
    device = method.device
    scores: dict[str, Scores] = {}
    for network, backbone in method.networks().items():
        splits = evaluator.features(backbone, device)
        scores[network] = evaluator.score(splits, names, "test")
        if network == method.evaluated:
            description = {
                "backbone": {**config["backbone"], "channels": dataset.channels},
                "clean": _clean(config, dataset),
                "network": network,
                "fingerprint": folder.fingerprint,
            }
            save_encoder(folder.encoder, backbone, description)
            tsne_picture(
                folder.picture,
                splits.test.x,
                splits.test.labels,
                title=f"{config['method']['name']} on {dataset.name}: {network} features of test images, t-SNE",
                seed=0,
                limit=PICTURE_IMAGES,
            )
    scores["random"] = _random_scores(config, dataset, evaluator, data, device, names)
    scores["pixels"] = evaluator.score(evaluator.pixels(), names, "test")
    return scores


def _random_scores(
    config: Config, dataset: Dataset, evaluator: Evaluator, data: DataModule, device: torch.device, names: list[str]
) -> Scores:
    """Random weights per protocol: the better of untouched BatchNorm statistics and ones measured on images."""
    backbone = random_backbone(config, dataset).to(device)
    untouched = evaluator.score(evaluator.features(backbone, device), names, "test")
    clean = evaluator.clean
    batches, images = [], 0
    for batch in data.bank():
        batches.append(clean(batch.images.to(device)))
        images += len(batch)
        if images >= CALIBRATION_IMAGES:
            break
    recalibrate(backbone, batches)
    measured = evaluator.score(evaluator.features(backbone, device), names, "test")
    return {name: max(untouched[name], measured[name], key=lambda score: score.percent or 0.0) for name in names}


def _predictions(scores: dict[str, Scores], data: DataModule) -> dict[str, Any]:
    """Per test image: its label, and what every network under every protocol says."""
    arrays: dict[str, Any] = {"labels": data.splits["test"].labels.numpy()}
    for network, found in scores.items():
        for name, score in found.items():
            if score.predictions is not None:
                arrays[f"{network}/{name}"] = score.predictions.cpu().numpy()
    return arrays


def _curves(history: History) -> dict[str, list[list[float]]]:
    """Accuracy over epochs by ``<split>/<protocol>/<network>``: pairs of epoch and percent."""
    names = dict.fromkeys(name for row in history.rows for name in row if name.startswith(("validation/", "test/")))
    return {name: [[epoch, value] for epoch, value in history.curve(name)] for name in names}
