"""Loggers that people look at while a run trains; what a run leaves behind does not depend on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from ssl_bench.errors import UserError


def build_logger(
    config: Mapping[str, Any], *, folder: Path, fingerprint: str, step: int, warn: Callable[[str], None]
) -> Logger | None:
    """The logger that ``config["logger"]`` names, or None.

    step: the optimiser step the run goes on from, 0 for a new run. A logger that cannot start is a warning: training
    goes on without it.
    """
    options = config["logger"]
    if options["name"] == "wandb":
        return _wandb(config, options, folder, fingerprint, warn)
    if options["name"] == "tensorboard":
        return _tensorboard(folder, step)
    return None


def _wandb(
    config: Mapping[str, Any], options: Mapping[str, Any], folder: Path, fingerprint: str, warn: Callable[[str], None]
) -> Logger | None:
    """One W&B run under the fingerprint, offline unless WANDB_MODE says otherwise.

    Offline, a resumed run starts a new file; the recorder first repeats all earlier rows into it, so the newest file
    is whole by itself, and syncing the files in their order ends with one curve.
    """
    import wandb

    mode = os.environ.get("WANDB_MODE", "offline")
    names = {"project": options["project"], "entity": options["entity"], "group": options["group"]}
    plain = {key: value for key, value in config.items() if key not in ("runs_dir", "data_dir", "logger")}
    try:
        run = wandb.init(
            **names,
            id=fingerprint,
            name=f"{config['method']['name']}-{config['dataset']['name']}-{config['scale']['name']}-s{config['seed']}",
            dir=folder,
            mode=mode,  # type: ignore[arg-type]
            resume="allow" if mode == "online" else None,
            config=plain,
            settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True, init_timeout=30),
        )
    except Exception as error:  # no network, no key, no server: none of it is a reason not to train
        warn(f"W&B could not start ({' '.join(str(error).split())}); training goes on without it.")
        return None
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return WandbLogger(experiment=run)  # type: ignore[arg-type]


def _tensorboard(folder: Path, step: int) -> Logger:
    try:
        # Rows after the checkpoint that a run goes on from are written again; purge_step hides their first edition.
        return TensorBoardLogger(folder, name="tensorboard", version="", purge_step=step or None)
    except ModuleNotFoundError:
        raise UserError("logger=tensorboard needs TensorBoard: pip install 'ssl-bench[tensorboard]'.") from None


def log_results(logger: Logger | None, results: Mapping[str, Mapping[str, float | None]], picture: Path) -> None:
    """The final table and the picture."""
    if isinstance(logger, WandbLogger):
        protocols = list(dict.fromkeys(name for scores in results.values() for name in scores))
        rows = [[network, *(scores.get(name) for name in protocols)] for network, scores in results.items()]
        logger.log_table("results", columns=["network", *protocols], data=rows)
        logger.log_image("t-SNE", [str(picture)])
        for network, scores in results.items():
            logger.experiment.summary.update({f"final/{name}/{network}": value for name, value in scores.items()})
    elif isinstance(logger, TensorBoardLogger):
        figures = {f"final/{name}/{network}": v for network, scores in results.items() for name, v in scores.items() if v is not None}
        for name, value in figures.items():
            logger.experiment.add_scalar(name, value)


def close(logger: Logger | None) -> None:
    """Write out what is buffered."""
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()
    elif logger is not None:
        logger.finalize("success")
