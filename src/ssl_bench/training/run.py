"""One run, read top to bottom: build → pretrain → evaluate → record."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.strategies import SingleDeviceStrategy
from rich.console import Console

from ssl_bench import conditions, distributed
from ssl_bench.callbacks.accuracy_monitor import AccuracyMonitor
from ssl_bench.callbacks.checkpointer import Checkpointer, WholeCheckpointIO, read_checkpoint
from ssl_bench.callbacks.code_history import CodeHistory, saved_by
from ssl_bench.callbacks.collapse_monitor import CollapseMonitor
from ssl_bench.callbacks.finite_loss import FiniteLoss
from ssl_bench.callbacks.logger import Logger
from ssl_bench.callbacks.progress import TrainingProgress
from ssl_bench.callbacks.recorder import Recorder
from ssl_bench.callbacks.replicas import Replicas
from ssl_bench.callbacks.timing import Timing
from ssl_bench.config.schema import Config
from ssl_bench.data.catalog import Dataset
from ssl_bench.data.datamodule import DataModule
from ssl_bench.data.remarks import remarks
from ssl_bench.devices import (
    device_type,
    failures_named,
    repeatable,
    resolve_accelerator,
    resolve_device,
    resolve_precision,
    why_not_compiled,
    within_memory,
)
from ssl_bench.evaluation import baselines
from ssl_bench.evaluation.evaluator import Scores, reasons
from ssl_bench.evaluation.precision import full_float32
from ssl_bench.files import write_text, write_whole
from ssl_bench.methods.base import Method
from ssl_bench.nn.norm import synchronize
from ssl_bench.report.figures import tsne_picture
from ssl_bench.report.tables import NAMES, run_table
from ssl_bench.results.code import code_digest, is_other_code, versions_of
from ssl_bench.results.encoder import save_encoder
from ssl_bench.results.fingerprint import NUMERICS
from ssl_bench.results.history import History
from ssl_bench.results.record import code_version, environment, peak_memory, without_places, write_record
from ssl_bench.results.store import RunFolder
from ssl_bench.training import loggers, preflight
from ssl_bench.training.build import (
    baseline_scores,
    build_data,
    build_evaluator,
    build_method,
    build_protocols,
    clean_arguments,
    cpu_time,
    fingerprint_of,
)
from ssl_bench.training.ranks import Joined, Replicated, without_signal_handlers

PICTURE_IMAGES = 1000
CODE = code_version()  # as loaded: the checkout may move on while a run is at work


def run(config: Config, watchers: Sequence[pl.Callback] = ()) -> dict[str, Any]:
    """Do the run of ``config``, unless its folder holds the result already; returns the record.

    ``watchers`` see the training before the run's own callbacks do. Under several devices every rank calls this; rank
    0 alone decides, writes and speaks.
    """
    quiet()
    chosen = config.trainer
    group = distributed.joined(
        devices=chosen.devices,
        nodes=chosen.nodes,
        cuda=resolve_accelerator(config.trainer.accelerator) == "gpu",
        timeout=chosen.timeout,
    )
    with group, failures_named(), repeatable(chosen.deterministic), ExitStack() as held:
        console = Console(quiet=distributed.rank() > 0)
        config = _compiled_if_possible(config, console)
        if chosen.threads:
            torch.set_num_threads(chosen.threads)
        loggers.check_installed(config.logger.name)
        data = build_data(config)
        if distributed.world_size() > 1:  # one process per machine downloads what is missing
            distributed.on_every_rank(data.setup if distributed.local_rank() == 0 else lambda: None)
        distributed.on_every_rank(data.setup)
        precision = resolve_precision(config.trainer.precision, config.trainer.accelerator)
        name = fingerprint_of(config, data.digest)
        folder = RunFolder(Path(config.runs_dir) / distributed.agreed(name, "configuration, data or precision"))

        if folder.finished() is None:  # before a folder is made
            _require_word(config, data)

        def claim() -> dict[str, Any] | None:
            held.enter_context(folder.locked())
            found = folder.finished()
            if found is None or _starts_over(versions_of(found), "it was trained", config, folder, console):
                return None
            console.print(f"Finished before: {folder.path}", highlight=False, soft_wrap=True)
            changed = _other_versions(found, config)
            if changed:
                tables = "which tables do not mix with it"
                _warn(console, f"scored by {changed}, {tables}; {_scored_again(folder)}.")
            return found

        record = distributed.on_rank_zero(claim)
        if record is None:
            _require_word(config, data)
            record = _run(config, data, precision, folder, console, watchers)
    console.print(run_table(record))
    console.print(f"{folder.path}  ·  picture: {folder.picture}", highlight=False, soft_wrap=True)
    return record


def _require_word(config: Config, data: DataModule) -> None:
    """UserError at scale=paper where no GPU was found and the CPU was not asked for."""
    none_found = config.trainer.accelerator == "auto" and device_type(config.trainer.accelerator) == "cpu"
    if config.scale.name == "paper" and none_found:
        conditions.require_word("paper", cpu_time(config, data))


def quiet() -> None:
    """Keep the libraries' advice and deprecations of their own making away from the user's terminal."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", message=".*new API settings to control TF32")  # both kinds are set


def _compiled_if_possible(config: Config, console: Console) -> Config:
    """``config``, without compiling where that does not work, which is then shown: the run is one that never asked."""
    if not config.trainer.compile:
        return config
    device = "cuda" if resolve_accelerator(config.trainer.accelerator) == "gpu" else "cpu"
    reason = why_not_compiled(torch.device(device))
    if reason is None:
        return config
    _warn(console, f"trainer.compile=true does not work on this machine ({reason}): training is not compiled.")
    return config.changed({"trainer.compile": False})


def _for_less_memory(config: Config, precision: str) -> str:
    """What to set so that training takes less memory."""
    remedies = [f"lower batch_size={config.batch_size} (trainer.accumulate adds up gradients of several batches)"]
    if precision == "32-true":
        remedies.append("set trainer.precision=bf16-mixed")
    if config.dataset.resident != "false":
        remedies.append("set dataset.resident=false")
    return " or ".join(remedies)


def _starts_over(
    versions: Sequence[Mapping[str, Any]], since: str, config: Config, folder: RunFolder, console: Console
) -> bool:
    """Whether to train anew what was made by code of these ``versions``, then put aside; else show that it has changed.

    since: what code has changed since, for the sentence.
    """
    method, again = config.method.name, config.rerun
    if not is_other_code(versions, code_digest(config.method.target), unknown=again):
        return False
    if again:
        kept = folder.set_aside()
        console.print(f"{method} is trained again: what the run left is in {kept}", highlight=False, soft_wrap=True)
    else:
        changed = f"the code of {method} has changed since {since}"
        _warn(console, f"{changed}; rerun=true trains it again and keeps what there is.")
    return bool(again)


def _other_versions(record: Mapping[str, Any], config: Config) -> str:
    """Which protocols and baselines have another version than when the run was scored, in words; empty for none."""
    now = {protocol.name: protocol.version for protocol in build_protocols(config, refit=True)} | baselines.VERSIONS
    before = {**dict.fromkeys(baselines.VERSIONS, 1), **record.get("baselines", {}), **record["protocols"]}
    names = {**dict.fromkeys(now), **NAMES}
    return ", ".join(
        f"{names[name] or name} v{before[name]} (now v{version})"
        for name, version in now.items()
        if before.get(name, version) != version
    )


def _scored_again(folder: RunFolder) -> str:
    if not folder.checkpoint.exists():
        return "rerun=true trains it again, for it has no checkpoint to score"
    return f"without {folder.record.name} in {folder.path} the same command scores it again from its checkpoint"


def _warn(console: Console, sentence: str) -> None:
    shown = sentence.encode(errors="backslashreplace").decode()  # file names need not be text
    console.print(f"warning: {shown}", style="yellow", highlight=False, markup=False, soft_wrap=True)


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

    warn = partial(_warn, console)

    def begin() -> int | None:
        checkpoint = read_checkpoint(folder.checkpoint, folder.fingerprint)
        if checkpoint and _starts_over(saved_by(checkpoint), "the checkpoint was saved", config, folder, console):
            checkpoint = None
        write_text(folder.config, yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True))
        return checkpoint["global_step"] if checkpoint else None

    dataset, chosen = data.dataset, config.trainer
    first, several = distributed.rank() == 0, distributed.world_size() > 1
    own_statistics = several and not chosen.sync_batchnorm
    resumed = distributed.on_rank_zero(begin)
    method = build_method(config, dataset, data)
    if several and not own_statistics:
        synchronize(method)
    if own_statistics:
        method.require_batch(config.batch_size // distributed.world_size())
    epochs = config.epochs * method.passes_per_epoch
    history, timing, code = (
        History(),
        Timing(),
        CodeHistory({**CODE, "digest": code_digest(config.method.target)}),
    )
    evaluator = build_evaluator(config, data, clean_arguments(config, dataset))
    logger = Logger()
    if first:
        logger = loggers.build_logger(config, folder=folder.path, fingerprint=folder.fingerprint, warn=warn)
    checkpointer = Checkpointer(
        folder.checkpoint, fingerprint=folder.fingerprint, every_seconds=chosen.checkpoint_seconds
    )
    collapse = CollapseMonitor(history, warn)
    recorder = Recorder(history, folder.metrics, timing, logger)
    accuracy = AccuracyMonitor(
        evaluator,
        history,
        monitor=config.evaluation.monitor,
        monitor_every=config.monitor_every,
        curves=config.evaluation.curves,
        curves_every=config.eval_every,
    )
    monitor = f"validation/{config.evaluation.monitor}/{method.evaluated}"
    callbacks: list[pl.Callback] = [
        *watchers,
        *([Replicas(share_statistics=own_statistics)] if several else []),
        timing,
        code,
        FiniteLoss(),
        collapse,
        accuracy,
        recorder,
        *([TrainingProgress(console, history, timing, monitor)] if chosen.progress and first else []),
        checkpointer,
    ]
    console.print(
        f"{config.method.name} on {len(data.parts.pretraining):,} images of {dataset.name}, "
        f"{epochs} epoch{'s' if epochs > 1 else ''}, {precision}"
        + (f", {distributed.world_size()} processes" if several else "")
        + ("" if resumed is None else f", resuming after step {resumed}"),
        highlight=False,
    )
    seen = remarks(dataset, data.splits)
    for sentence in (*seen.sentences, *preflight.advice(config, len(data.parts.pretraining))):
        warn(sentence)
    trainer = pl.Trainer(
        accelerator=resolve_accelerator(config.trainer.accelerator),
        devices=chosen.devices,
        num_nodes=chosen.nodes,
        strategy=Replicated(sync_buffers=own_statistics)
        if several
        else SingleDeviceStrategy(resolve_device(config.trainer.accelerator)),
        precision=precision,  # type: ignore[arg-type]
        max_epochs=epochs,
        accumulate_grad_batches=chosen.accumulate,
        gradient_clip_val=chosen.clip,
        logger=False,
        callbacks=callbacks,
        plugins=[WholeCheckpointIO(), Joined(chosen.nodes)],
        default_root_dir=folder.path,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if several:
        without_signal_handlers(trainer)
    no_room = data.place_on(trainer.strategy.root_device)
    if no_room:
        warn(no_room)
    torch.manual_seed(config.seed)  # for the dropout of some backbones; a resumed run restores its own state
    exact = full_float32(trainer.strategy.root_device) if precision == "32-true" else nullcontext()
    with within_memory("this training", _for_less_memory(config, precision)), exact:
        trainer.fit(method, datamodule=data, ckpt_path=None if resumed is None else folder.checkpoint)

    console.print("evaluating", highlight=False)
    method.to(trainer.strategy.root_device)  # Lightning leaves it on the CPU
    scores = _evaluate(config, dataset, method, accuracy, data, folder)
    results = {network: {name: score.percent for name, score in found.items()} for network, found in scores.items()}
    for reason in reasons(scores[method.evaluated]):
        warn(f"not scored: {reason}")
    if first:
        write_whole(folder.predictions, lambda temporary: np.savez_compressed(temporary, **_predictions(scores, data)))
    record = {
        "method": config.method.name,
        "dataset": dataset.name,
        "scale": config.scale.name,
        "seed": config.seed,
        "fingerprint": folder.fingerprint,
        "evaluated": method.evaluated,
        "results": results,
        "protocols": {name: protocol.version for name, protocol in evaluator.protocols.items()},
        "baselines": baselines.VERSIONS,
        "notes": {
            net: {name: score.notes for name, score in found.items() if score.notes} for net, found in scores.items()
        },
        "curves": _curves(history),
        "warnings": collapse.warned,
        "numerics": NUMERICS,
        "precision": precision,
        "device": device_type(config.trainer.accelerator),
        "batch_statistics": "per_device" if own_statistics else "global",
        "processes": distributed.world_size(),
        "data_digest": data.digest,
        "images": {part: len(getattr(data.parts, part)) for part in ("pretraining", "bank", "probe", "validation")}
        | {"test": len(data.splits["test"])},
        "skipped_images": {split: len(images.skipped) for split, images in data.splits.items()},
        "test_images_in_train": seen.test_images_in_train,
        "contradictory_train_images": seen.contradictory_train_images,
        "student_steps": method.student_steps,
        "train_seconds": round(timing.seconds, 2),
        "images_per_second": round(timing.images_per_second, 1),
        "session_seconds": round(time.perf_counter() - started, 2),
        "peak_memory_bytes": peak_memory(),
        "code": code.now,
        "earlier_code": code.earlier,
        "environment": environment(),
        "config": without_places(config.as_dict()),
    }
    if first:
        write_record(folder.record, record)
        folder.failure.unlink(missing_ok=True)
    logger.log_results(results, folder.picture)
    logger.close()
    return record


def _evaluate(
    config: Config,
    dataset: Dataset,
    method: Method,
    monitor: AccuracyMonitor,
    data: DataModule,
    folder: RunFolder,
) -> dict[str, Scores]:
    """The final table: trained networks, random weights and raw pixels under the same protocols, on test images."""
    names, evaluator, device = config.evaluation.protocols, monitor.evaluator, method.device
    arguments = {**config.backbone.as_dict(), "channels": dataset.channels}
    clean = clean_arguments(config, dataset)
    scores: dict[str, Scores] = {}
    for network, backbone in method.networks().items():
        # Unless the run was interrupted after its last epoch, the monitor has just embedded all.
        splits = monitor.last.pop(network, None) or evaluator.features(backbone, device)
        scores[network] = evaluator.score(splits, names, "test")
        test = splits.test  # on every rank, should it not have been embedded yet
        if network == method.evaluated and distributed.rank() == 0:
            description = {
                "backbone": arguments,
                "clean": clean,
                "network": network,
                "fingerprint": folder.fingerprint,
            }
            save_encoder(folder.encoder, backbone, description)
            tsne_picture(
                folder.picture,
                test.x,
                test.labels,
                names=dataset.class_names,
                title=f"{config.method.name} on {dataset.name}: {network} features of test images, t-SNE",
                seed=0,
                limit=PICTURE_IMAGES,
            )
    return scores | baseline_scores(config, data, evaluator, device, network=arguments, clean=clean)


def _predictions(scores: dict[str, Scores], data: DataModule) -> dict[str, Any]:
    """Per test image: its label, and what every network predicts under every protocol."""
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
