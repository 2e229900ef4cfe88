"""The loader within a real Trainer: whatever the moment of the checkpoint, no batch is lost or seen twice."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ssl_bench.batch import Batch
from ssl_bench.data.images import Images
from ssl_bench.data.loader import BatchLoader
from ssl_bench.data.orders import permutation

# Lightning's own use of torch.utils._pytree; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")

EPOCHS = 4
BATCHES = 5
Seen = list[tuple[int, int, list[int]]]


def loader() -> BatchLoader:
    split = Images(torch.zeros(23, 1, 2, 2, dtype=torch.uint8), torch.zeros(23, dtype=torch.int64))
    order = partial(permutation, 23, 1)
    return BatchLoader(split, torch.arange(23), order, batch_size=4, rank=0, world=1, seed=1, drop_last=True)


class Toy(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.seen: Seen = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert batch.place.epoch == self.current_epoch
        assert batch.place.step == batch_idx
        self.seen.append((batch.place.epoch, batch.place.step, batch.index.tolist()))
        return self.layer(batch.images.flatten(1).float()).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ValidatedToy(Toy):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert batch.place.step == batch_idx


class SaveAt(pl.Callback):
    """Save once, after so many steps, in the hook of that name."""

    def __init__(self, hook: str, steps: int, path: Path) -> None:
        self.steps = steps
        self.path = path
        setattr(self, hook, self.save)

    def save(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.steps and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)


def trainer(**options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", devices=1, enable_model_summary=False, **{**quiet, **options})


def fit(options: dict[str, Any], checkpoint: Path | None = None, validate: bool = False) -> Seen:
    module = ValidatedToy() if validate else Toy()
    trainer(**options).fit(module, loader(), loader() if validate else None, ckpt_path=checkpoint)
    return module.seen


MOMENTS = [
    pytest.param("on_train_batch_end", 7, {"max_epochs": EPOCHS}, id="mid-epoch"),
    pytest.param("on_train_batch_end", 1, {"max_epochs": EPOCHS}, id="after the first batch"),
    pytest.param("on_train_batch_end", 9, {"max_epochs": EPOCHS}, id="before the last batch"),
    pytest.param("on_train_batch_end", 10, {"max_epochs": EPOCHS}, id="at the last batch"),
    pytest.param("on_train_epoch_end", 10, {"max_epochs": EPOCHS}, id="at the end of the epoch"),
    pytest.param("on_train_batch_end", 7, {"max_steps": EPOCHS * BATCHES}, id="mid-epoch, counting steps"),
    pytest.param("on_train_batch_end", 10, {"max_steps": EPOCHS * BATCHES}, id="at the last batch, counting steps"),
]


@pytest.mark.parametrize(("hook", "steps", "stop"), MOMENTS)
@pytest.mark.parametrize("validate", [False, True])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(
    hook: str, steps: int, stop: dict[str, int], validate: bool, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "last.ckpt"
    whole = fit({**stop, "callbacks": [SaveAt(hook, steps, checkpoint)]}, validate=validate)
    order = [permutation(23, 1, epoch).tolist() for epoch in range(EPOCHS)]
    assert whole == [(e, b, order[e][4 * b : 4 * b + 4]) for e in range(EPOCHS) for b in range(BATCHES)]
    assert fit(stop, checkpoint, validate=validate) == whole[steps:]


@pytest.mark.parametrize(
    ("hook", "steps"), [("on_train_batch_end", 4), ("on_train_batch_end", 6), ("on_train_epoch_end", 6)]
)
def test_shortened_epochs_begin_and_resume_as_whole_ones_do(hook: str, steps: int, tmp_path: Path) -> None:
    options = {"max_epochs": EPOCHS, "limit_train_batches": 3}
    checkpoint = tmp_path / "last.ckpt"
    whole = fit({**options, "callbacks": [SaveAt(hook, steps, checkpoint)]})
    assert [place[:2] for place in whole] == [(epoch, step) for epoch in range(EPOCHS) for step in range(3)]
    assert fit(options, checkpoint) == whole[steps:]


def test_a_longer_run_resumes_from_the_end_of_a_finished_one(tmp_path: Path) -> None:
    checkpoint = tmp_path / "last.ckpt"
    whole = fit({"max_epochs": EPOCHS})
    half = fit({"max_epochs": 2, "callbacks": [SaveAt("on_train_end", 2 * BATCHES, checkpoint)]})
    assert half + fit({"max_epochs": EPOCHS}, checkpoint) == whole
