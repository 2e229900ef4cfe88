"""Score networks: features of every labelled image once, then every protocol on them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Protocol as Interface

import torch
from torch import Tensor, nn

from ssl_bench.batch import Batch
from ssl_bench.devices import within_memory
from ssl_bench.evaluation.features import Features, Splits, Tunable, extract, pixels
from ssl_bench.evaluation.score import On, Protocol, Score

Scores = dict[str, Score]
LESS = "lower evaluation.batch_size or evaluation.memory"


class Loader(Interface):
    """Batches of the images at ``index``, once each and in that order."""

    index: Tensor

    def __iter__(self) -> Iterator[Batch]: ...


class Evaluator:
    """Knows the images and the protocols; networks come and go.

    Ranks share the work of embedding; then each scores all features, which takes no longer than waiting for one.

    loaders: ``bank``, ``probe``, ``validation`` (positions in the train split) and ``test``; each call gives a fresh
    pass. drawn: batches of training images, as of `Tunable`; None where no network is trained further. memory: bytes
    that a block of similarities may take.
    """

    def __init__(
        self,
        *,
        clean: nn.Module,
        loaders: Mapping[str, Callable[[], Loader]],
        protocols: Sequence[Protocol],
        classes: int,
        memory: int,
        drawn: Callable[[Tensor, int], Iterable[Batch]] | None = None,
    ) -> None:
        self.clean = clean
        self.loaders = loaders
        self.protocols = {protocol.name: protocol for protocol in protocols}
        self.classes = classes
        self.memory = memory
        self.drawn = drawn

    @within_memory("evaluation", LESS)
    def features(self, backbone: nn.Module, device: torch.device) -> Splits:
        """What ``backbone`` makes of all images, in float32 so that a saved encoder gives the very same.

        Each part is embedded when it is first read: until then the network must stay as it is.
        """

        def embed(loader: Loader) -> Features:
            clean = self.clean.to(device)
            return extract(backbone, clean, loader, device=device)

        splits = self._splits(embed, device)
        if self.drawn:
            splits.network = Tunable(backbone, self.clean, device, self.drawn, partial(self.features, device=device))
        return splits

    def pixels(self, device: torch.device) -> Splits:
        """Raw pixels in place of features, on ``device``."""
        return self._splits(partial(pixels, device=device), device)

    @within_memory("evaluation", LESS)
    def score(self, splits: Splits, names: Iterable[str], on: On) -> Scores:
        """Protocols by name on the ``validation`` or ``test`` images; each is evaluated once for the same splits."""
        return {name: splits.once((name, on), partial(self._score, splits, name, on)) for name in names}

    def _score(self, splits: Splits, name: str, on: On) -> Score:
        return self.protocols[name].evaluate(splits, on, self.memory)

    def _splits(self, embed_some: Callable[[Loader], Features], device: torch.device) -> Splits:
        def embed(name: str) -> Features:
            loader = self.loaders[name]()
            if len(loader.index):
                return embed_some(loader)
            # Where no image has a label there is nothing to evaluate, which the protocols report.
            none = torch.empty(0, dtype=torch.int64, device=device)
            return Features(torch.empty(0, 0, device=device), none, none)

        bank = cache(partial(embed, "bank"))

        def part(name: str) -> Features:
            """Rows of the bank where it holds them all: both come from the train split."""
            wanted, there = self.loaders[name]().index, self.loaders["bank"]().index
            if torch.equal(wanted, there):
                return bank()
            if torch.isin(wanted, there).all():
                return bank().rows(torch.searchsorted(there, wanted))
            return embed(name)

        return Splits(
            bank, partial(part, "probe"), partial(part, "validation"), partial(embed, "test"), classes=self.classes
        )


def reasons(scores: Scores) -> list[str]:
    """Why protocols gave no score, each reason once."""
    return list(dict.fromkeys(str(score.notes["reason"]) for score in scores.values() if score.percent is None))
