"""Class-balanced, reproducible cuts of a labelled split.

Labels are int64 ``[M]``, -1 where an image has none; an image without a label is never held out
and never chosen. Every cut returns sorted positions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_bench.batch import generator
from ssl_bench.errors import UserError

# Part of the benchmark, not of a run: every method, seed and machine sees the same cuts.
SPLIT_SEED = 0
VALIDATION_FRACTION = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What the images of the train split are used for: sorted positions, int64."""

    pretraining: Tensor
    bank: Tensor  # labelled neighbours of k-NN
    probe: Tensor  # the linear probe trains here while it chooses, within bank without validation
    validation: Tensor  # choices are made here


def parts(
    labels: Tensor,
    *,
    subset_size: int | None,
    label_count: int | None,
    hold_out_validation: bool,
    pretraining_from: int | None = None,
) -> Parts:
    """The rule by which train is divided.

    Validation is cut first and is the same whatever else is asked for. ``hold_out_validation`` keeps it
    out of pretraining and bank; otherwise these use all of train, as the published protocols do.
    ``subset_size`` limits pretraining, and bank and probe with it; it takes labelled images first and unlabelled
    ones when there are no more of them. ``label_count`` limits bank and probe to so many labelled images.
    None means no limit. Images before ``pretraining_from`` are not pretrained on; what bank and probe use of them
    is then not limited by ``subset_size``.

    Raises:
        UserError: a limit is below one image per class, or above what there is.
    """
    rest, validation = hold_out(labels, VALIDATION_FRACTION, SPLIT_SEED)
    used = rest if hold_out_validation else torch.arange(len(labels))
    pretraining = used[used >= (pretraining_from or 0)]
    if subset_size is not None:
        pretraining = pretraining[_subset(labels[pretraining], subset_size)]
    bank = used if pretraining_from else pretraining
    bank = bank[labels[bank] >= 0]
    probe = bank[torch.isin(bank, rest)]
    if label_count is not None:  # one budget: both know the same labels
        bank = probe = probe[subset(labels[probe], label_count, SPLIT_SEED)]
    return Parts(pretraining, bank, probe, validation)


def _subset(labels: Tensor, count: int) -> Tensor:
    """`subset` of the labelled images, or all of these and as many of the others as are still wanted."""
    others = labels < 0
    missing = count - int((~others).sum())
    if missing <= 0 or not others.any():
        return subset(labels, count, SPLIT_SEED)
    if count > len(labels):
        raise UserError(f"subset={count}, but there are {len(labels)} images to pretrain on: choose at most these.")
    return (~others | (others & (_turns(labels, SPLIT_SEED) < missing))).nonzero()[:, 0]


def hold_out(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Set aside ``fraction`` (0–1) of every class, rounded, at least one image and not all: ``(rest, held_out)``."""
    sizes = torch.bincount(labels[labels >= 0], minlength=1)  # where no image has a label, too
    shares = (sizes * fraction).round().long().clamp(min=1).minimum((sizes - 1).clamp(min=0))
    held = (labels >= 0) & (_turns(labels, seed) < shares[labels.clamp(min=0)])
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]


def subset(labels: Tensor, count: int, seed: int) -> Tensor:
    """Choose ``count`` images, as equally many of each class as there are; int64 ``[count]``.

    Of the same labels and seed, a smaller choice lies within every larger one.

    Raises:
        UserError: fewer than one image per class, or more than there are.
    """
    labelled = (labels >= 0).nonzero()[:, 0]
    classes = int(torch.bincount(labels[labelled]).count_nonzero())
    if not classes <= count <= len(labelled):
        raise UserError(
            f"Cannot choose {count} class-balanced images out of {len(labelled)} labelled ones of {classes} classes: "
            f"ask for {classes} to {len(labelled)} (subset= or labels=)."
        )
    # All first turns, class by class, then all second turns, and so on.
    place = _turns(labels, seed)[labelled] * (labels.max() + 1) + labels[labelled]
    return labelled[place.argsort()[:count]].sort().values


def _turns(labels: Tensor, seed: int) -> Tensor:
    """When each image would be drawn among those of its class, in a random order: 0, 1, …; int64 ``[M]``."""
    shuffled = torch.randperm(len(labels), generator=generator("turns", seed))
    grouped = shuffled[labels[shuffled].argsort(stable=True)]  # class after class, shuffled within each
    group = labels[grouped] + 1  # those without a label form a group of their own
    sizes = torch.bincount(group)
    turns = torch.empty_like(labels)
    turns[grouped] = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[group]
    return turns
