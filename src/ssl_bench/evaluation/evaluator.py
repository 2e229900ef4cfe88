"""Score networks: features of every labelled image once, then every protocol on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol as Interface

import torch
from torch import Tensor, nn

from ssl_bench.batch import Batch
from ssl_bench.evaluation.features import Features, Splits, extract, pixels
from ssl_bench.evaluation.protocols import On, Protocol, Score

Scores = dict[str, Score]


class Loader(Interface):
    """Batches of the images at ``index``, once each and in that order."""

    index: Tensor

    def __iter__(self) -> Iterable[Batch]: ...


class Evaluator:
    """Knows the images and the protocols; networks come and go.

    Ranks share the work of embedding; then each scores all features, for waiting is no cheaper.

    loaders: ``bank``, ``probe``, ``validation`` (positions in the train split) and ``test``; each call gives a fresh
    pass. memory: bytes that a block of similarities may take.
    """

    def __init__(
        self,
        *,
        clean: nn.Module,
        loaders: Mapping[str, Callable[[], Loader]],
        protocols: Sequence[Protocol],
        classes: int,
        memory: int,
    ) -> None:
        self.clean = clean
        self.loaders = loaders
        self.protocols = {protocol.name: protocol for protocol in protocols}
        self.classes = classes
        self.memory = memory

    def features(self, backbone: nn.Module, device: torch.device) -> Splits:
        """What ``backbone`` makes of all images, in float32 so that a saved encoder gives the very same."""
        clean = self.clean.to(device)
        return self._splits(
            lambda loader: extract(backbone, clean, loader, device=device, autocast=None, channels_last=True),  # type: ignore[arg-type]
            device,
        )

    def pixels(self) -> Splits:
        """Raw pixels in place of features."""
        return self._splits(pixels, torch.device("cpu"))  # type: ignore[arg-type]

    def score(self, splits: Splits, names: Iterable[str], on: On) -> Scores:
        """Protocols by name on the ``validation`` or ``test`` images."""
        return {name: self.protocols[name].evaluate(splits, on, self.memory) for name in names}

    def _splits(self, embed_some: Callable[[Loader], Features], device: torch.device) -> Splits:
        def embed(loader: Loader) -> Features:
            return embed_some(loader) if len(loader.index) else _nothing(device)

        bank = embed(self.loaders["bank"]())
        return Splits(
            bank=bank,
            train=_part(self.loaders["probe"](), bank, embed),
            validation=_part(self.loaders["validation"](), bank, embed),
            test=embed(self.loaders["test"]()),
            classes=self.classes,
        )


def _nothing(device: torch.device) -> Features:
    """Where no image has a label there is nothing to evaluate, and the protocols say so."""
    none = torch.empty(0, dtype=torch.int64, device=device)
    return Features(torch.empty(0, 0, device=device), none, none)


def _part(loader: Loader, bank: Features, embed: Callable[[Loader], Features]) -> Features:
    """The loader's images, taken from the bank where it holds them all: both come from the train split."""
    index = loader.index.to(bank.index.device)
    if torch.isin(index, bank.index).all():
        return bank.rows(torch.searchsorted(bank.index, index))
    return embed(loader)


def reasons(scores: Scores) -> list[str]:
    """Why protocols gave no score, each reason once."""
    return list(dict.fromkeys(str(score.notes["reason"]) for score in scores.values() if score.percent is None))
