"""What a network makes of every image, computed once; k-NN and probe read the same features.

Letters: N images, F feature width, C channels, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.batch import Batch
from ssl_bench.distributed import gather_uneven
from ssl_bench.errors import UserError
from ssl_bench.evaluation.precision import full_float32

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Features:
    """One row per image, in the order of the loader that showed them."""

    x: Tensor  # float32 [N, F], finite
    labels: Tensor  # int64 [N], -1 where the image has none
    index: Tensor  # int64 [N], position in the full dataset

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or not len(self.x) == len(self.labels) == len(self.index):
            shapes = [tuple(tensor.shape) for tensor in (self.x, self.labels, self.index)]
            raise ValueError(f"features, labels and index want shapes [N, F], [N] and [N], not {shapes}")
        broken = int((~self.x.isfinite()).any(1).sum())
        if broken:
            raise UserError(
                f"The features of {broken} of {len(self)} images are infinite or not a number: "
                "the network has diverged, so train it with a smaller learning rate."
            )

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, chosen: Tensor) -> Features:
        """The rows that ``chosen``, positions or a mask on any device, names."""
        chosen = chosen.to(self.x.device)
        return Features(self.x[chosen], self.labels[chosen], self.index[chosen])

    def labelled(self) -> Features:
        """Only the images that have a label."""
        has_label = self.labels >= 0
        return self if bool(has_label.all()) else self.rows(has_label)

    def joined(self, other: Features) -> Features:
        """These rows, then those of ``other``."""
        return Features(
            torch.cat([self.x, other.x]), torch.cat([self.labels, other.labels]), torch.cat([self.index, other.index])
        )


Part = Features | Callable[[], Features]


@dataclass(frozen=True, slots=True, eq=False)
class Tunable:
    """A network and the images that it may be trained on further, and is scored on."""

    backbone: nn.Module  # is left as it is
    clean: nn.Module  # uint8 images, and their sizes where they were squashed, to what the network takes
    device: torch.device
    drawn: Callable[[Tensor, int], Iterable[Batch]]  # training images at positions [K], in this order, so many a batch
    embed: Callable[[nn.Module], Splits]  # what another network makes of all images


class Splits:
    """What the protocols read of one network. A part given as a function is computed when it is first read.

    Images without a label are left out on the way in, so no protocol can count them.

    bank: clean training images for k-NN; train: the probe trains on these; validation: every choice reads these.
    network: what made the features, for protocols that train it further; None: there is none to train.
    """

    def __init__(
        self, bank: Part, train: Part, validation: Part, test: Part, *, classes: int, network: Tunable | None = None
    ) -> None:
        self._parts = {"bank": bank, "train": train, "validation": validation, "test": test}
        self._known: dict[Hashable, Any] = {}
        self.classes = classes
        self.network = network

    bank: cached_property[Features] = cached_property(lambda self: self._labelled("bank"))
    train: cached_property[Features] = cached_property(lambda self: self._labelled("train"))
    validation: cached_property[Features] = cached_property(lambda self: self._labelled("validation"))
    test: cached_property[Features] = cached_property(lambda self: self._labelled("test"))

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What ``compute`` gives, computed the first time that ``key`` is asked for: nothing is scored twice."""
        if key not in self._known:
            self._known[key] = compute()
        known: T = self._known[key]
        return known

    def columns(self, first: int, end: int, network: Tunable | None = None) -> Splits:
        """Columns ``first`` … ``end`` − 1 of all features, cut out part by part as they are read.

        network: what makes these columns alone.
        """

        def cut(name: str) -> Features:
            features: Features = getattr(self, name)
            # A copy, for sums over strided rows round otherwise.
            return replace(features, x=features.x[:, first:end].contiguous())

        return Splits(*(partial(cut, name) for name in self._parts), classes=self.classes, network=network)

    def _labelled(self, name: str) -> Features:
        part = self._parts[name]
        features = (part() if callable(part) else part).labelled()
        if len(features) and int(features.labels.max()) >= self.classes:
            raise ValueError(f"{name} has label {int(features.labels.max())}, but there are {self.classes} classes")
        return features


def extract(
    network: nn.Module,
    clean: nn.Module,
    loader: Iterable[Batch],
    *,
    device: torch.device | str,
) -> Features:
    """Features of every image the loader shows, in evaluation mode and without gradient; they stay on ``device``.

    They are computed in full float32, whatever the user or a training around has set.

    Where the loader shows every rank its share, each embeds its own, and all get the features of all images in the
    loader's order. clean: turns uint8 images ``[n, C, H, W]``, and their sizes where they were squashed, into the
    network's normalised input. Both modules are left in the modes they were in, module by module. Raises UserError for
    an empty loader, for features that are not ``[n, F]`` and for features that are not finite.
    """
    device = torch.device(device)
    share = _Share(device)
    with torch.no_grad(), full_float32(device), _evaluating(network, clean):
        for batch in loader:
            batch = batch.to(device)
            if not len(batch):  # more ranks than images; not every network takes none
                share.add(batch, None)
                continue
            images = cleaned(clean, batch.images, batch.sizes)
            features = network(images.contiguous(memory_format=torch.channels_last))  # [n, F]
            if features.ndim != 2:
                raise UserError(
                    f"The network returns features of shape {list(features.shape)} where one row per image is wanted: "
                    "end it with global pooling or a flatten."
                )
            share.add(batch, features.float())
    return share.gathered()


def cleaned(clean: nn.Module, images: Tensor, sizes: Tensor | None) -> Tensor:
    """Images as evaluation sees them, undistorted where they were squashed from ``sizes``."""
    view: Tensor = clean(images) if sizes is None else clean(images, sizes)
    return view


THUMBNAIL = 32  # pixels of a side, as in the downsampled ImageNet of Chrabaszcz et al. 2017


def pixels(loader: Iterable[Batch], device: torch.device | str = "cpu") -> Features:
    """The images themselves as features ``[N, C·H·W]`` in 0 … 1 on ``device``: what every network should beat.

    Images larger than THUMBNAIL × THUMBNAIL are resized to that: all of their pixels as numbers would take four times
    the memory of the images, and a linear probe of them longer than many a training.
    """
    device = torch.device(device)
    share = _Share(device)
    for batch in loader:
        batch = batch.to(device)
        images = batch.images
        if len(batch) and max(images.shape[-2:]) > THUMBNAIL:
            images = F.interpolate(images.float(), (THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)
        share.add(batch, images.flatten(1).float() / 255)
    return share.gathered()


class _Share:
    """The features of the images that this rank has seen, and where they stand among all."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seen = 0  # by all ranks
        none = torch.empty(0, dtype=torch.int64, device=device)
        # x, labels, index and position; where this rank has seen no image, no rows and no width.
        self.parts = [(torch.empty(0, 0, device=device), none, none, none)]

    def add(self, batch: Batch, x: Tensor | None) -> None:
        """Keep the features ``[n, F]`` of this rank's rows of a batch, None where it has none."""
        if x is not None:
            first = self.seen + batch.place.first
            position = torch.arange(first, first + len(batch), device=self.device)
            self.parts.append((x, batch.labels, batch.index, position))
        self.seen += batch.place.size

    def gathered(self) -> Features:
        """The features of all ranks' images in the loader's order."""
        if not self.seen:
            raise UserError("There are no images to evaluate: choose a split or a data limit that leaves at least one.")
        parts = self.parts[1:] or self.parts
        x, labels, index, position = (gather_uneven(torch.cat(column)) for column in zip(*parts, strict=True))
        if bool((position[1:] > position[:-1]).all()):
            return Features(x, labels, index)
        order = position.argsort()
        return Features(x[order], labels[order], index[order])


@contextmanager
def _evaluating(*networks: nn.Module) -> Iterator[None]:
    # A frozen layer may sit in evaluation mode inside a training network, so each module gets its own mode back.
    modes = [(module, module.training) for network in networks for module in network.modules()]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
