"""How training and evaluation will see single images, to be seen before a run."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ssl_bench.augment.views import CleanView
from ssl_bench.batch import Batch
from ssl_bench.data.loader import BatchLoader
from ssl_bench.evaluation.features import extract

MOST_EPOCHS = 50  # in which an image is looked for: under a sliding window an epoch may pass it by


def chosen_images(loader: BatchLoader, count: int) -> list[int]:
    """Positions of images in the order of training, one of each class before a second one of any."""
    order = loader.index[loader.order(0)][: len(loader) * loader.batch_size]
    turns: dict[int, int] = {}
    ranked = []
    for place, label in enumerate(loader.images.labels[order].tolist()):
        turns[label] = turns.get(label, 0) + 1
        ranked.append((turns[label], place))
    return list(dict.fromkeys(order[[place for _, place in sorted(ranked)]].tolist()))[:count]


def batches_of(loader: BatchLoader, number: int) -> Iterator[Batch]:
    """Batches of image ``number`` alone, each with its place in the run, from which its views are drawn."""
    for epoch in range(MOST_EPOCHS):
        order = loader.index[loader.order(epoch)][: len(loader) * loader.batch_size]
        for position in (order == number).nonzero()[:, 0].tolist():
            batch, row = loader.at(epoch, position // loader.batch_size), position % loader.batch_size
            columns = {field.name: getattr(batch, field.name) for field in fields(batch)}
            alone = {name: column[row : row + 1] for name, column in columns.items() if isinstance(column, Tensor)}
            yield replace(batch, **alone, place=batch.place._replace(first=batch.place.first + row))


def clean_view(clean: CleanView, one: Batch) -> Tensor:
    """The image of a batch of one as networks are given it where they are evaluated, ``[1, C, S, S]``."""
    seen = extract(nn.Flatten(), clean, [one], device="cpu")
    return seen.x.view(1, -1, clean.size, clean.size)


def pixels(view: Tensor, drawn_by: Any) -> Any:
    """A normalised view ``[1, C, S, S]`` as uint8 ``[S, S, 3]``, gray as equal red, green and blue."""
    shown = (view[0] * drawn_by.std + drawn_by.mean).clamp(0, 1).mul(255).round().to(torch.uint8)
    return shown.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
