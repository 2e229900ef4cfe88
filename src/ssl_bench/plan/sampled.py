"""What evaluation costs, from a sample of the images: it takes hours at scale=paper.

Some images of every part are embedded, and their features stand for those of more rows, which the protocols score.
The time of either counts by how many there are; what has been saved so far is *owed*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ssl_bench.batch import Batch
from ssl_bench.data.datamodule import DataModule
from ssl_bench.evaluation.evaluator import Evaluator, Loader
from ssl_bench.evaluation.features import Features, Splits, Tunable
from ssl_bench.evaluation.finetune import FineTuning, Tuned
from ssl_bench.evaluation.linear import FittedProbe, LinearProbe
from ssl_bench.evaluation.protocols import FewLabels, FineTuned, Linear, LinearFewLabels
from ssl_bench.evaluation.score import On, Protocol, Score

T = TypeVar("T")

EMBEDDED = 512  # images of a part, or a batch if that is more
ROWS = {"bank": 16_384, "probe": 4_096, "validation": 1_024, "test": 1_024}  # at most; t-SNE wants 1,000
PROBED = (Linear, LinearFewLabels)
PROBE_EPOCHS = 3
TUNING_STEPS = 3


class Sampled(Evaluator):
    """Does the work of ``whole`` on a sample.

    Attributes:
        owed: seconds that it would have taken more.
        lacking: bytes of features that are not there, by the type of the device.
    """

    def __init__(self, whole: Evaluator, data: DataModule, device: torch.device) -> None:
        labels = {name: data.splits["test" if name == "test" else "train"].labels for name in whole.loaders}
        index = {name: make().index for name, make in whole.loaders.items()}
        self.rows = _rows(index, {name: len(found) for name, found in labels.items()})
        self.more = {name: max(1, len(found)) / max(1, len(self.rows[name])) for name, found in index.items()}
        self.labels = labels
        self.device = device
        self.owed = 0.0
        self.lacking = {"cpu": 0, "cuda": 0}
        super().__init__(
            clean=whole.clean,
            loaders={name: lambda name=name: _First(whole.loaders[name](), name, self.rows[name]) for name in index},  # type: ignore[misc]
            protocols=[self._short(one, whole.classes, len(index["probe"])) for one in whole.protocols.values()],
            classes=whole.classes,
            memory=whole.memory,
            drawn=whole.drawn,
        )

    def _short(self, protocol: Protocol, classes: int, whole: int) -> Protocol:
        """whole: the rows of the probe, of which the sample has some."""
        more = 1.0  # labels in a draw from the sample for each that it stands for
        if isinstance(protocol, (LinearFewLabels, FineTuned)) and protocol.share is not None:
            least = classes / max(1, len(self.rows["probe"]))
            if round(protocol.share * whole) >= classes and protocol.share < least:  # the sample has one of each, too
                more = least / protocol.share
                protocol = replace(protocol, share=least)
        if isinstance(protocol, FineTuned):
            return replace(protocol, tuning=ShortTuning(protocol.tuning, self))  # type: ignore[arg-type]
        if isinstance(protocol, PROBED):
            return replace(protocol, probe=ShortProbe(protocol.probe, self, more))  # type: ignore[arg-type]
        return protocol

    def timed(self, times: Callable[[T], float], work: Callable[..., T], *given: Any) -> T:
        """``work(*given)``, which stands for so many ``times`` itself."""
        wait(self.device)
        began = time.perf_counter()
        result = work(*given)
        wait(self.device)
        self.owed += (time.perf_counter() - began) * (times(result) - 1)
        return result

    def _splits(self, embed_some: Callable[[Loader], Features], device: torch.device) -> Splits:
        lacking = 0

        def embed(loader: Loader) -> Features:
            nonlocal lacking
            assert isinstance(loader, _First)
            features = self.timed(lambda seen: loader.whole / len(seen), embed_some, loader)
            # Beside the bank lie the rows that the probe trains on, and two more of either while it is at work.
            copies = 4 if loader.name == "bank" else 1
            lacking += copies * 4 * features.x.shape[1] * (loader.whole - len(loader.index))
            self.lacking[device.type] = max(self.lacking.get(device.type, 0), lacking)
            return _spread(features, loader.index, self.labels[loader.name])

        return super()._splits(embed, device)

    def _score(self, splits: Splits, name: str, on: On) -> Score:
        protocol, more = self.protocols[name], self.more[on]
        _ = splits.bank, splits.train, splits.validation, splits.test  # embedded beforehand, which counts otherwise
        if isinstance(protocol, (*PROBED, FineTuned)):
            more = 1.0  # its training is timed
        elif not isinstance(protocol, FewLabels):
            more *= self.more["bank"]
        return self.timed(lambda _: more, super()._score, splits, name, on)


@dataclass(frozen=True, repr=False)
class ShortProbe:
    """Trains a linear probe for a few epochs in place of all; equal ones are one, as equal probes are."""

    whole: LinearProbe
    sampled: Sampled
    more: float  # rows for each that it stands for

    @property
    def short(self) -> LinearProbe:
        return replace(self.whole, epochs=min(PROBE_EPOCHS, self.whole.epochs))

    def __repr__(self) -> str:
        return repr(self.whole)  # a baseline's identity holds it

    def fit(self, train: Features, validation: Features, classes: int) -> FittedProbe:
        return self._timed(self.sampled.more["probe"] / self.more, self.short.fit, train, validation, classes)

    def refit(self, fitted: FittedProbe, train: Features, validation: Features, classes: int) -> FittedProbe:
        more = self.sampled.more
        all_rows = len(train) * more["probe"] + len(validation) * more["validation"]
        times = all_rows / (len(train) + len(validation))
        return self._timed(times, self.short.refit, fitted, train, validation, classes)

    def _timed(self, times: float, train: Callable[..., FittedProbe], *given: Any) -> FittedProbe:
        return self.sampled.timed(lambda _: times * self.whole.epochs / self.short.epochs, train, *given)


class ShortTuning:
    """Takes a few steps of fine-tuning in place of all, with one learning rate in place of all."""

    def __init__(self, whole: FineTuning, sampled: Sampled) -> None:
        self.whole = whole
        self.short = replace(whole, steps=min(TUNING_STEPS, whole.steps), learning_rates=whole.learning_rates[:1])
        self.sampled = sampled

    def __repr__(self) -> str:
        return repr(self.whole)

    def fit(self, network: Tunable, train: Features, classes: int, draw: int) -> Tuned:
        (rate,) = self.short.learning_rates
        times = self.whole.steps / self.short.steps * len(self.whole.learning_rates)
        self.sampled.timed(lambda _: times, self.short.train, network, train, classes, rate, draw)
        return self.short.fit(network, train, classes, draw)


def wait(device: torch.device) -> None:
    """Until ``device`` has done its work, where it returns before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _First:
    """The first images of a loader, in place of those at ``index``."""

    def __init__(self, loader: Loader, name: str, index: Tensor) -> None:
        self.loader = loader
        self.whole = len(loader.index)
        self.name = name
        self.index = index

    def __iter__(self) -> Iterator[Batch]:
        seen = 0
        for batch in self.loader:
            yield batch
            seen += len(batch)
            if seen >= EMBEDDED:
                return


def _rows(index: dict[str, Tensor], sizes: dict[str, int]) -> dict[str, Tensor]:
    """At most ROWS of each part's positions, sorted; what probe and validation share with the bank, it keeps."""
    draw = torch.Generator().manual_seed(0)
    turn = {name: torch.randperm(size, generator=draw) for name, size in sizes.items()}
    rows = {name: found[turn[name][found].argsort()[: ROWS[name]]].sort().values for name, found in index.items()}
    for part in (rows["probe"], rows["validation"]):
        shared = part[torch.isin(part, index["bank"])]
        rows["bank"] = torch.cat([rows["bank"], shared[~torch.isin(shared, rows["bank"])]]).sort().values
    return rows


def _spread(seen: Features, index: Tensor, labels: Tensor) -> Features:
    """The features of some images as those of all at ``index``, varied so that no two are equal."""
    if torch.equal(seen.index.to(index.device), index):
        return seen
    x = seen.x
    like = torch.arange(len(index), device=x.device) % len(x)
    varied = x[like] + 0.3 * x.std(0, correction=0) * torch.randn(len(index), x.shape[1], device=x.device)
    return Features(varied, labels[index].to(x.device), index.to(x.device))
