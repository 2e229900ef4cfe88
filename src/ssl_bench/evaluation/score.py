"""What every protocol is made of: its score, and the images that it asks about and among."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ssl_bench.evaluation.features import Features, Splits

On = Literal["validation", "test"]


@dataclass(frozen=True, slots=True)
class Score:
    """What a protocol measures of one network."""

    percent: float | None  # accuracy, 0 … 100; None where the protocol does not apply, with notes["reason"]
    predictions: Tensor | None  # int64 [N], in the order of the split; None where there is not one per image
    notes: dict[str, float | int | str]


class Protocol(typing.Protocol):
    """A way to score features."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    def evaluate(self, splits: Splits, on: On, budget: int) -> Score:
        """Accuracy on one split; ``budget`` bounds the working memory in bytes and changes no result."""


def split_of(splits: Splits, on: On) -> Features:
    """The images that are scored."""
    return splits.test if on == "test" else splits.validation


def bank_of(splits: Splits, on: On) -> Features:
    """The bank without the queries: the published protocols keep validation images in it, each its own neighbour."""
    if on == "test":
        return splits.bank

    def others() -> Features:
        queries = torch.isin(splits.bank.index, splits.validation.index)
        return splits.bank.rows(~queries) if queries.any() else splits.bank

    return splits.once("the bank without validation images", others)


def missing_in(**features: Features) -> str | None:
    """Why a protocol that needs these splits cannot be evaluated, or None if it can."""
    empty = [name for name, split in features.items() if not len(split)]
    return f"there are no labelled images in {' and '.join(empty)}" if empty else None


def unavailable(reason: str) -> Score:
    """The score where there is none."""
    return Score(None, None, {"reason": reason})


def percent_of(predictions: Tensor, features: Features, classes: int) -> float:
    """Top-1 accuracy of ``predictions`` ``[N]``."""
    # Imported here, for it takes seconds: whoever has a Trainer has paid them already.
    from torchmetrics.functional.classification import multiclass_stat_scores

    # Counts and not multiclass_accuracy, which rounds the share to float32: 24 of 25 are 96 %, not 95.999998 %.
    counts = multiclass_stat_scores(predictions, features.labels, classes, average="micro", validate_args=False)
    return 100 * int(counts[0]) / len(features)
