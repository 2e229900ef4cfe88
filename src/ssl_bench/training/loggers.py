r"""Loggers that people watch while a run trains; what a run leaves behind does not depend on them.

A run that resumes after an interruption first repeats its earlier epochs, so what a logger writes then is the whole
curve by itself. TensorBoard shows the newest edition of every step. W&B cannot resume offline and starts a new file
under the same run id, and `latest-run` points to the newest, so this uploads every run as one curve:

    find runs -name latest-run -exec wandb sync {} \;

One run at a time: W&B writes its file every 15 seconds, and one that was killed before that and never resumed has
nothing to read, which would stop `wandb sync` for all runs of one call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from ssl_bench.callbacks.logger import Logger, Results
from ssl_bench.config.schema import Config

START_SECONDS = 30  # to reach a W&B server before training starts without it
FINISH_SECONDS = 60  # to upload what is left at the end; the rest stays on disk for `wandb sync`


class WandB(Logger):
    """One W&B run under the fingerprint, offline unless WANDB_MODE sets another mode."""

    def __init__(self, config: Config, folder: Path, fingerprint: str) -> None:
        import wandb

        # Silent for the session and not only for the run: else a missing key is asked for at the terminal.
        wandb.setup(settings=wandb.Settings(silent=True))
        options, mode = config.logger.options, os.environ.get("WANDB_MODE", "offline")
        dataset, row = config.dataset.name, options["row"] or config.method.name
        self.run = wandb.init(
            project=options["project"],
            entity=options["entity"],
            group=options["group"],
            job_type=row,
            tags=[dataset],
            id=fingerprint,
            name=f"{row}-{dataset}-{config.scale.name}-s{config.seed}",
            dir=folder.absolute(),  # W&B's service may have been started in another folder
            mode=mode,  # type: ignore[arg-type]
            resume="allow" if mode == "online" else None,
            reinit="finish_previous",  # the run before in a sweep may have ended with an error
            config={
                key: value for key, value in config.as_dict().items() if key not in ("runs_dir", "data_dir", "logger")
            }
            | {"row": row},
            settings=wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                disable_git=True,
                init_timeout=START_SECONDS,
                finish_timeout=FINISH_SECONDS,
            ),
        )
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")
        self.epoch = 0.0

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.epoch = figures["epoch"]
        self.run.log(dict(figures), step=step, commit=True)

    def log_results(self, results: Results, picture: Path) -> None:
        import wandb

        protocols = list(dict.fromkeys(name for scores in results.values() for name in scores))
        rows = [[network, *(scores.get(name) for name in protocols)] for network, scores in results.items()]
        table = wandb.Table(columns=["network", *protocols], data=rows)
        image = wandb.Image(str(picture))
        # Logged and not only summarised, so that every kind of panel finds them.
        self.run.log({"epoch": self.epoch, "results": table, "t-SNE": image, **final_figures(results)})

    def close(self) -> None:
        self.run.finish()


class TensorBoard(Logger):
    """Event files under ``tensorboard/`` of the run's folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # The thread that writes keeps what ended it for the next call, which then raises it.
        self.shown_of_threads = threading.excepthook
        threading.excepthook = self._unless_of_tensorboard
        # Every start writes the whole history, so it supersedes all that earlier ones wrote.
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=0)
        self.step = 0

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.step = step
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def log_results(self, results: Results, picture: Path) -> None:
        import numpy as np
        from PIL import Image

        for name, value in final_figures(results).items():
            self.writer.add_scalar(name, value, self.step)
        pixels = np.asarray(Image.open(picture).convert("RGB"))
        self.writer.add_image("t-SNE", pixels, self.step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()
        threading.excepthook = self.shown_of_threads

    def _unless_of_tensorboard(self, failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard."):
            self.shown_of_threads(failed)


class Forgiving(Logger):
    """A logger that may fail: the first failure is a warning, and training continues without it."""

    def __init__(self, name: str, start: Callable[[], Logger], warn: Callable[[str], None]) -> None:
        self.name = name
        self.warn = warn
        self.logger = Logger()
        self._try(lambda: setattr(self, "logger", start()))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._try(lambda: self.logger.log(step, figures))

    def log_results(self, results: Results, picture: Path) -> None:
        self._try(lambda: self.logger.log_results(results, picture))

    def close(self) -> None:
        self._try(lambda: self.logger.close())

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # no network, no key, no server, no space: none of it is a reason not to train
            self.logger = Logger()
            self.warn(f"logger={self.name} failed ({' '.join(str(error).split())}); the run continues without it.")


def build_logger(config: Config, *, folder: Path, fingerprint: str, warn: Callable[[str], None]) -> Logger:
    """The logger that ``config.logger`` names, started; it never raises, it warns."""
    name = config.logger.name
    starts: dict[str, Callable[[], Logger]] = {
        "none": Logger,
        "wandb": lambda: WandB(config, folder, fingerprint),
        "tensorboard": lambda: TensorBoard(folder),
    }
    return Forgiving(name, starts[name], warn)


def final_figures(results: Results) -> dict[str, float]:
    """The final table as ``final/<protocol>/<network>``; a protocol that a network has no figure for is left out."""
    return {
        f"final/{protocol}/{network}": percent
        for network, scores in results.items()
        for protocol, percent in scores.items()
        if percent is not None
    }
