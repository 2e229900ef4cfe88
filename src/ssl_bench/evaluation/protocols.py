"""What is measured, under names and versions that stand beside every number.

Raise a protocol's version whenever its numbers change: records with different versions are not compared.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ssl_bench.errors import UserError
from ssl_bench.evaluation import knn
from ssl_bench.evaluation.draws import balanced_draws, share_draws
from ssl_bench.evaluation.features import Features, Splits
from ssl_bench.evaluation.finetune import FineTuning
from ssl_bench.evaluation.linear import FittedProbe, LinearProbe
from ssl_bench.evaluation.score import On, Protocol, Score, bank_of, missing_in, percent_of, split_of, unavailable


@dataclass(frozen=True, slots=True)
class NearestNeighbours:
    """Weighted k-NN over the whole bank, or over all there is where the bank has fewer than k images."""

    name: str
    version: int
    k: int
    temperature: float

    def evaluate(self, splits: Splits, on: On, budget: int) -> Score:
        missing = missing_in(bank=bank_of(splits, on), **{on: split_of(splits, on)})
        if missing:
            return unavailable(missing)
        return _by_neighbours(splits, on, (self.k,), self.temperature, budget)[self.k]


@dataclass(frozen=True, slots=True)
class ChosenNeighbours:
    """Weighted k-NN whose k is the best on validation images, the smallest among equals."""

    name: str
    version: int
    ks: tuple[int, ...]
    temperature: float

    def evaluate(self, splits: Splits, on: On, budget: int) -> Score:
        missing = missing_in(**{"bank": splits.bank, "validation": splits.validation, on: split_of(splits, on)})
        if missing:
            return unavailable(missing)

        def scores(on: On, ks: Sequence[int]) -> dict[int, Score]:
            return _by_neighbours(splits, on, ks, self.temperature, budget)

        chosen = splits.once((self, "validation"), partial(scores, "validation", self.ks))
        k = max(self.ks, key=lambda k: chosen[k].percent or 0.0)
        score = chosen[k] if on == "validation" else scores(on, (k,))[k]
        return Score(score.percent, score.predictions, {**score.notes, "validation_percent": chosen[k].percent or 0.0})


def _by_neighbours(splits: Splits, on: On, ks: Sequence[int], temperature: float, budget: int) -> dict[int, Score]:
    """The score for each k, from one search."""
    bank, queries = bank_of(splits, on), split_of(splits, on)
    there = {k: min(k, len(bank)) for k in ks}
    predictions = knn.predict_by_k(
        bank.x,
        bank.labels,
        queries.x,
        ks=sorted(set(there.values())),
        temperature=temperature,
        classes=splits.classes,
        budget=budget,
    )
    return {
        k: Score(percent_of(predictions[n], queries, splits.classes), predictions[n], {"k": n, "bank": len(bank)})
        for k, n in there.items()
    }


@dataclass(frozen=True, slots=True)
class FewLabels:
    """Nearest neighbour among few labelled images, the mean over class-balanced draws that are the same for every run.

    A draw depends on ``seed`` and on which images of which class the bank holds, not on their order.
    """

    name: str
    version: int
    labels: int
    draws: int
    seed: int

    def evaluate(self, splits: Splits, on: On, budget: int) -> Score:
        bank, queries = bank_of(splits, on), split_of(splits, on)
        missing = missing_in(bank=bank, **{on: queries})
        if missing:
            return unavailable(missing)
        if splits.classes > self.labels:
            return unavailable(f"{self.labels} labels cannot hold each of {splits.classes} classes")
        smallest, most = int(bank.labels.bincount(minlength=splits.classes).min()), -(-self.labels // splits.classes)
        if smallest < most:
            return unavailable(
                f"a balanced draw wants {most} images of every class, but the bank has {smallest} of one"
            )
        percents: list[float] = []
        for rows in balanced_draws(bank, splits.classes, labels=self.labels, draws=self.draws, seed=self.seed):
            few = bank.rows(rows)
            predictions = knn.predict(
                few.x, few.labels, queries.x, k=1, temperature=1.0, classes=splits.classes, budget=budget
            )
            percents.append(percent_of(predictions, queries, splits.classes))
        return Score(statistics.fmean(percents), None, {"draws": self.draws, "std": statistics.pstdev(percents)})


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear probe: trained on train, chosen on validation, refitted on both before it sees the test split.

    Without ``refit`` the chosen one is kept, where validation labels would break a budget of labels.
    """

    name: str
    version: int
    probe: LinearProbe
    refit: bool
    top: int  # an image is right if its label is among so many classes of highest score

    def evaluate(self, splits: Splits, on: On, budget: int) -> Score:
        queries = split_of(splits, on)
        missing = missing_in(**{"train": splits.train, "validation": splits.validation, on: queries})
        if missing:
            return unavailable(missing)
        seen = splits.train, splits.validation, splits.classes
        fitted = splits.once(self.probe, lambda: self.probe.fit(*seen))
        if self.refit and on == "test":
            fitted = splits.once((self.probe, "refitted"), lambda: self.probe.refit(fitted, *seen))
        if self.top > 1:
            return self._among_highest(fitted, queries, splits.classes)
        predictions = fitted.predict(queries.x)
        notes: dict[str, float | int | str] = {
            "learning_rate": fitted.learning_rate,
            "validation_percent": fitted.validation_percent,
            "trained_on": fitted.images,
        }
        return Score(percent_of(predictions, queries, splits.classes), predictions, notes)

    def _among_highest(self, fitted: FittedProbe, queries: Features, classes: int) -> Score:
        if classes <= 2 * self.top:
            return unavailable(f"among {classes} classes, to be one of the {self.top} most likely ones shows little")
        highest = fitted.classifier.scores(queries.x).topk(self.top).indices  # [N, top]
        right = (highest == queries.labels[:, None]).any(1)
        return Score(100 * int(right.sum()) / len(queries), None, {"learning_rate": fitted.learning_rate})


@dataclass(frozen=True, slots=True)
class LinearFewLabels:
    """A linear probe on a share of the training labels, the mean over class-balanced draws, the same for every run.

    Each draw's learning rate is chosen on validation images, on which nothing is trained.
    """

    name: str
    version: int
    probe: LinearProbe
    share: float
    draws: int
    seed: int

    def evaluate(self, splits: Splits, on: On, budget: int) -> Score:
        train, queries, classes = splits.train, split_of(splits, on), splits.classes
        missing = missing_in(**{"train": train, "validation": splits.validation, on: queries})
        if missing:
            return unavailable(missing)
        draws = share_draws(train, classes, self.share, draws=self.draws, seed=self.seed)
        if isinstance(draws, str):
            return unavailable(draws)
        percents: list[float] = []
        for rows in draws:
            few = train.rows(rows)
            key = (self.probe, self.share, len(percents))
            fitted = splits.once(key, partial(self.probe.fit, few, splits.validation, classes))
            percents.append(percent_of(fitted.predict(queries.x), queries, classes))
        notes: dict[str, float | int | str] = {
            "labels": len(draws[0]),
            "draws": self.draws,
            "std": statistics.pstdev(percents),
        }
        return Score(statistics.fmean(percents), None, notes)


@dataclass(frozen=True, slots=True)
class FineTuned:
    """The whole network, trained on the training labels or on class-balanced draws of a share of them.

    Validation images choose the learning rate, of each draw by itself, and are not trained on.
    """

    name: str
    version: int
    tuning: FineTuning
    share: float | None  # None: all labels, and one draw
    draws: int
    seed: int

    def evaluate(self, splits: Splits, on: On, budget: int) -> Score:
        if splits.network is None:
            return unavailable("there is no network to fine-tune")
        train, queries, classes = splits.train, split_of(splits, on), splits.classes
        missing = missing_in(**{"train": train, "validation": splits.validation, on: queries})
        if missing:
            return unavailable(missing)
        draws: list[Tensor] | str = [torch.arange(len(train))]
        if self.share is not None:
            draws = share_draws(train, classes, self.share, draws=self.draws, seed=self.seed)
        if isinstance(draws, str):
            return unavailable(draws)
        percents: list[float] = []
        for number, rows in enumerate(draws):
            fit = partial(self.tuning.fit, splits.network, train.rows(rows), classes, self.seed + number)
            tuned = splits.once((self.tuning, self.share, number), fit)
            predictions = split_of(tuned.scores, on).x.argmax(1)
            percents.append(percent_of(predictions, queries, classes))
        notes: dict[str, float | int | str] = {"labels": len(draws[0])}
        if len(draws) == 1:
            notes |= {"learning_rate": tuned.learning_rate, "validation_percent": tuned.validation_percent}
            return Score(percents[0], predictions, notes)
        notes |= {"draws": len(draws), "std": statistics.pstdev(percents)}
        return Score(statistics.fmean(percents), None, notes)


def with_top5(names: Sequence[str], classes: int) -> list[str]:
    """``names`` and, behind ``linear`` where there are more than ten ``classes``, ``linear_top5``."""
    found = list(names)
    if classes > 10 and "linear" in found and "linear_top5" not in found:
        found.insert(found.index("linear") + 1, "linear_top5")
    return found


def protocols(names: Sequence[str], probe: LinearProbe, tuning: FineTuning, *, refit: bool) -> list[Protocol]:
    """The protocols of these names, in this order; ``refit`` is the linear probe's.

    Raises UserError for a name that is not one of ours.
    """
    # Their numbers stand here and not in a configuration: a protocol that can be tuned compares nothing.
    known: list[Protocol] = [
        NearestNeighbours("knn1", version=1, k=1, temperature=0.1),
        NearestNeighbours("knn200", version=1, k=200, temperature=0.1),
        FewLabels("knn1_100labels", version=1, labels=100, draws=10, seed=0),
        Linear("linear", version=2, probe=probe, refit=refit, top=1),
        ChosenNeighbours("knn", version=1, ks=(1, 5, 10, 20, 50, 100, 200), temperature=0.1),
        Linear("linear_top5", version=1, probe=probe, refit=refit, top=5),
        LinearFewLabels("linear_1percent", version=1, probe=probe, share=0.01, draws=3, seed=0),
        LinearFewLabels("linear_10percent", version=1, probe=probe, share=0.1, draws=3, seed=0),
        FineTuned("finetune", version=2, tuning=tuning, share=None, draws=1, seed=0),
        FineTuned("finetune_1percent", version=2, tuning=tuning, share=0.01, draws=3, seed=0),
        FineTuned("finetune_10percent", version=2, tuning=tuning, share=0.1, draws=3, seed=0),
    ]
    by_name = {protocol.name: protocol for protocol in known}
    for name in names:
        if name not in by_name:
            raise UserError(f"There is no protocol {name!r}: choose among {', '.join(by_name)}.")
    return [by_name[name] for name in names]
