"""What a person sees while a run trains."""

import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ssl_bench.batch import Batch
from ssl_bench.callbacks.timing import Timing
from ssl_bench.results.history import History

REFRESH_SECONDS = 0.2  # of the bar; drawing at every step would cost training time
LINE_SECONDS = 10.0  # between lines where there is no terminal, and between losses read from an accelerator


class TrainingProgress(pl.Callback):
    """A bar over the whole run with epoch, loss, images/s, time left and the monitor; plain lines in a log."""

    def __init__(self, console: Console, history: History, timing: Timing, monitor: str) -> None:
        self.console = console
        self.history = history
        self.timing = timing
        self.monitor = monitor
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.loss = 0.0  # as last read
        self._drawn_at = self._read_at = 0.0

    def on_train_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            refresh_per_second=1 / REFRESH_SECONDS,
        )
        total = int(trainer.num_training_batches) * (trainer.max_epochs or 0)
        done = trainer.current_epoch * int(trainer.num_training_batches)
        self.task = self.bar.add_task("training", total=total, completed=done, figures="")
        self.bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.monotonic()
        pause = REFRESH_SECONDS if self.bar else LINE_SECONDS
        if not trainer.is_global_zero or now - self._drawn_at < pause:
            return
        self._drawn_at = now
        if method.device.type == "cpu" or now - self._read_at >= LINE_SECONDS:  # to read it is to wait for the device
            self.loss, self._read_at = float(outputs["value"]), now
        steps = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx + 1
        self._draw(trainer, trainer.current_epoch + 1, steps, self.loss, batch.place.size)

    def _draw(self, trainer: pl.Trainer, epoch: int, steps: int, loss: float, batch_size: int) -> None:
        figures = [f"loss {loss:.3f}", f"{self.timing.images_per_second:,.0f} images/s"]
        monitor = self.history.latest(self.monitor)
        if monitor is not None:
            figures.append(f"{self.monitor.split('/')[1]} {monitor:.1f} %")
        where = f"epoch {epoch}/{trainer.max_epochs}"
        if self.bar:
            self.bar.update(self.task, description=where, completed=steps, figures=" · ".join(figures))
        else:
            left = int(trainer.num_training_batches) * (trainer.max_epochs or 0) - steps
            figures.append(f"{left * batch_size / self.timing.images_per_second:.0f} s left")
            self.console.print(f"{where} · " + " · ".join(figures), highlight=False)

    def on_train_end(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        if self.bar and self.history.rows:
            last = self.history.rows[-1]
            self._draw(trainer, int(last["epoch"]), int(self.bar.tasks[0].total or 0), last["loss"], 0)
        self._stop()

    def on_exception(self, trainer: pl.Trainer, method: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None
