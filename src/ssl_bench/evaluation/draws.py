"""Class-balanced draws of few labelled images, the same for every run."""

import torch
from torch import Tensor

from ssl_bench.evaluation.features import Features


def balanced_draws(bank: Features, classes: int, *, labels: int, draws: int, seed: int) -> list[Tensor]:
    """``draws`` sets of ``labels`` bank rows, each with as many of one class as of another.

    Where ``classes`` does not divide ``labels``, classes drawn anew each time give one more. Depends on ``seed`` and
    on the dataset positions and labels in the bank, not on the order of its rows.
    """
    generator = torch.Generator().manual_seed(seed)
    in_order = bank.index.argsort().cpu()
    label = bank.labels.cpu()[in_order]
    members = [in_order[label == c] for c in range(classes)]
    each, more = divmod(labels, classes)
    chosen = []
    for _ in range(draws):
        count = torch.full((classes,), each)
        count[torch.randperm(classes, generator=generator)[:more]] += 1
        rows = [
            rows[torch.randperm(len(rows), generator=generator)[:wanted]]
            for rows, wanted in zip(members, count.tolist(), strict=True)
        ]
        chosen.append(torch.cat(rows).to(bank.x.device))
    return chosen


def share_draws(train: Features, classes: int, share: float, *, draws: int, seed: int) -> list[Tensor] | str:
    """Class-balanced draws of a ``share`` of the training labels, or why there are none."""
    labels = round(share * len(train))
    smallest = int(train.labels.bincount(minlength=classes).min())
    if labels < classes or smallest < -(-labels // classes):
        return (
            f"{share:.0%} of {len(train)} labels cannot be drawn evenly from {classes} classes, of which one has "
            f"{smallest} images"
        )
    return balanced_draws(train, classes, labels=labels, draws=draws, seed=seed)
