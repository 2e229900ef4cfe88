"""Small real runs of any method through Lightning's own Trainer."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_bench.batch import Batch
from ssl_bench.config.compose import compose
from ssl_bench.config.schema import Config
from ssl_bench.data.datamodule import DataModule
from ssl_bench.methods.base import Method, Step
from ssl_bench.training.build import build

Fit = Callable[..., tuple[Method, list[dict[str, Any]]]]
SMALL = ("scale=smoke", "method.concat_views=false", "subset=80", "batch_size=16", "epochs=2", "optimizer.warmup=0")


@functools.cache
def config_of(*overrides: str) -> Config:
    chosen = {
        override.partition("=")[0]: override for override in (*SMALL, *overrides)
    }  # what a test asks for, else the small default
    return compose(list(chosen.values()))


def make(*overrides: str) -> tuple[Method, DataModule]:
    method, data = build(config_of(*overrides))
    data.setup()
    return method, data


def loss_of(method: Method, predictions: Sequence[Tensor], targets: Sequence[Tensor], batch: Batch) -> Tensor:
    """The loss of a batch with these predictions, and embeddings equal to them, and targets."""
    loss, _ = method.collect_and_loss(Step(list(predictions), list(predictions), list(targets), batch))
    return loss


class Diary(pl.Callback):
    """Every step's batch, loss, draw and weights as the optimiser left them."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(method, Method)
        self.steps.append(
            {
                "batch": batch,
                "loss": outputs["loss"].item(),
                "student": [p.detach().clone() for p in method.student.parameters()],
                "teacher": [p.detach().clone() for p in method.teacher.parameters()] if method.teacher else [],
                "count": method.student_steps,
            }
        )


def fit(*overrides: str, double: bool = False, **trainer_options: Any) -> tuple[Method, list[dict[str, Any]]]:
    """Train for two epochs; returns the method and the diary of its steps."""
    method, data = make(*overrides)
    method.to(torch.float64 if double else torch.float32)
    diary = Diary()
    options: dict[str, Any] = {"max_epochs": 2 * method.passes_per_epoch, "precision": "32-true", **trainer_options}
    options["callbacks"] = [*options.pop("callbacks", []), diary]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        trainer.fit(method, datamodule=data)
    return method, diary.steps
