"""Which differences between rows of a table are more than the seeds' doing; arithmetic on accuracies in percent."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

ALPHA = 0.05
FEWEST = 3  # seeds: with fewer no difference is tested
POWER = 0.8  # with which a number of seeds is to show that two rows differ
MOST_SEEDS = 1000
PAIRS = 4000  # random ones, of which a rate is counted

BySeed = Mapping[int, float]


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (of the sample: over n − 1); None for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def paired_p(one: BySeed, other: BySeed, *, step: float = 0.0) -> float:
    """Two-sided p of the t-test on the differences of two rows, seed by seed (Student 1908); seeds of both count.

    step: what one test image is worth. Accuracies are multiples of it, so their differences spread at least as rounding
    does, step²/6: three equal differences of one image are no proof, though their own spread is 0.
    """
    seeds = sorted(one.keys() & other.keys())
    if len(seeds) < 2:
        raise ValueError(f"a paired test needs two seeds or more, not {len(seeds)}")
    return float(_p(np.array([[one[seed] - other[seed] for seed in seeds]]), step)[0])


def _p(differences: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Two-sided p by row of ``[tests, seeds]``."""
    mean, error = differences.mean(axis=1), _error(differences, step)
    with np.errstate(divide="ignore", invalid="ignore"):
        return beyond(np.where(mean == 0, 0.0, mean / error), differences.shape[1] - 1)


def _error(differences: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """The standard error of the mean by row of ``[tests, seeds]``, at least that of rounding."""
    return np.asarray(np.sqrt(np.maximum(differences.var(axis=1, ddof=1), step**2 / 6) / differences.shape[1]))


def beyond(t: NDArray[np.float64], freedom: int) -> NDArray[np.float64]:
    """``P(|T| > |t|)`` of Student's t with so many degrees of freedom."""
    return np.asarray(2 * special.stdtr(freedom, -np.abs(t)))


def holm(p: Sequence[float]) -> list[float]:
    """p adjusted for their number, in the order given (Holm 1979): rejecting those ≤ α errs once with at most α."""
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = largest
    return adjusted


class Distinguished(NamedTuple):
    """What the tests find in a column."""

    highest: str | None  # the row with the highest mean; None where nothing is compared
    apart: frozenset[str]  # the rows that differ from it by the tests


def distinguished(rows: Mapping[str, BySeed], *, step: float = 0.0) -> Distinguished:
    """The row with the highest mean, and those that differ from it by the paired tests.

    Only rows with FEWEST seeds take part, and of the others those that share FEWEST with the highest one. The tests are
    corrected for their number within ``rows``.
    """
    enough = {name: by_seed for name, by_seed in rows.items() if len(by_seed) >= FEWEST}
    if not enough:
        return Distinguished(None, frozenset())
    highest = max(enough, key=lambda name: statistics.fmean(enough[name].values()))
    others = [
        name
        for name, by_seed in enough.items()
        if name != highest and len(by_seed.keys() & enough[highest].keys()) >= FEWEST
    ]
    if not others:
        return Distinguished(None, frozenset())
    adjusted = holm([paired_p(enough[highest], enough[name], step=step) for name in others])
    return Distinguished(highest, frozenset(name for name, p in zip(others, adjusted, strict=True) if p <= ALPHA))


def interval(one: BySeed, other: BySeed, *, step: float = 0.0) -> tuple[float, float]:
    """The mean difference of two rows over common seeds, and half its 95 % interval; ``step`` as of `paired_p`."""
    differences, error = _differences(one, other, step)
    return float(differences.mean()), float(special.stdtrit(len(differences) - 1, 1 - ALPHA / 2)) * error


def seeds_needed(one: BySeed, other: BySeed, *, step: float = 0.0) -> int | None:
    """Seeds that show by POWER that two rows differ, if difference and spread stay; None: more than MOST_SEEDS.

    Of one test; as one of several, which are corrected for their number, it takes more.
    """
    differences, error = _differences(one, other, step)
    effect = abs(float(differences.mean())) / (error * len(differences) ** 0.5)  # in standard deviations
    n = np.arange(FEWEST, MOST_SEEDS + 1)
    limit = special.stdtrit(n - 1, 1 - ALPHA / 2)
    centre = effect * n**0.5
    power = special.nctdtr(n - 1, centre, -limit) + 1 - special.nctdtr(n - 1, centre, limit)
    enough = np.flatnonzero(power >= POWER)
    return int(n[enough[0]]) if len(enough) else None


def _differences(one: BySeed, other: BySeed, step: float) -> tuple[NDArray[np.float64], float]:
    """The differences seed by seed, and the standard error of their mean."""
    found = np.array([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())])
    return found, float(_error(found[None], step)[0])


def mean_ranks(columns: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], float]:
    """The rank of each row averaged over columns, 1 for the highest, and the critical difference (Demšar 2006).

    Rows whose ranks are closer than that do not differ by Nemenyi's test at ALPHA.
    """
    from scipy import stats  # takes a second to import

    rows = [name for name in columns[0] if all(name in column for column in columns)]
    ranks = stats.rankdata([[-column[name] for name in rows] for column in columns], axis=1).mean(axis=0)
    return dict(zip(rows, ranks.tolist(), strict=True)), critical_difference(len(rows), len(columns))


def critical_difference(rows: int, columns: int) -> float:
    """By how much mean ranks must differ at least by Nemenyi's test at ALPHA (Demšar 2006)."""
    from scipy import stats  # takes a second to import

    return float(stats.studentized_range.ppf(1 - ALPHA, rows, np.inf) * (rows * (rows + 1) / (12 * columns)) ** 0.5)


def false_positives(values: Sequence[float], seeds: int, *, rows: int = 2, step: float = 0.0) -> tuple[float, float]:
    """How often runs that differ in their seed alone are distinguished: of rows beside a best one, of columns.

    values: accuracies of such runs. They are dealt at random, PAIRS times and always in the same way, into ``rows``
    rows of ``seeds`` runs each, which are then compared as those of a table are.
    """
    if rows * seeds > len(values):
        raise ValueError(f"{rows} rows of {seeds} need {rows * seeds} runs, not {len(values)}")
    draws = np.random.default_rng(0).random((PAIRS, len(values))).argsort(axis=1)[:, : rows * seeds]
    dealt = np.asarray(values)[draws].reshape(PAIRS, rows, seeds)
    highest = dealt.mean(axis=2).argmax(axis=1)
    every = np.arange(PAIRS)
    differences = dealt[every, highest][:, None] - dealt
    p = _p(differences.reshape(-1, seeds), step).reshape(PAIRS, rows)
    p[every, highest] = np.inf  # with itself
    factors = np.arange(rows - 1, 0, -1)  # of Holm's correction, by rank
    apart = np.logical_and.accumulate(np.sort(p)[:, :-1] * factors <= ALPHA, axis=1).sum(axis=1)
    return float(apart.mean() / (rows - 1)), float((apart > 0).mean())


def smallest_step(values: Sequence[float]) -> float:
    """What one test image is worth, as far as accuracies of many runs show it."""
    known = sorted(set(values))
    return min((b - a for a, b in itertools.pairwise(known) if not math.isclose(a, b)), default=0.0)
