"""The paired test, its correction, and how often it errs."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from scipy import stats

from ssl_bench.report import statistics as tested
from ssl_bench.report.statistics import (
    beyond,
    distinguished,
    false_positives,
    holm,
    interval,
    mean_and_spread,
    mean_ranks,
    paired_p,
    seeds_needed,
    smallest_step,
)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 10, 31])
def test_paired_p_is_scipys(n: int) -> None:
    draw = np.random.default_rng(n)
    for _ in range(20):
        one, other = 90 + draw.normal(size=(2, n))
        rows = [dict(enumerate(values)) for values in (one, other)]
        assert paired_p(*rows) == pytest.approx(stats.ttest_rel(one, other).pvalue, rel=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30])
def test_tails_of_students_t_are_scipys(freedom: int) -> None:
    t = np.array([0.0, 1e-3, 0.5, 1.0, 3.0, 12.7, 300.0])
    np.testing.assert_allclose(beyond(t, freedom), 2 * stats.t.sf(t, freedom), atol=1e-14)
    np.testing.assert_allclose(beyond(-t, freedom), beyond(t, freedom))


def test_seeds_are_paired_by_their_number_and_those_of_one_row_alone_are_left_out() -> None:
    one, other = {0: 90.0, 2: 93.0, 1: 95.0, 9: 1.0}, {1: 94.0, 0: 91.5, 2: 90.0, 5: 2.0}
    expected = stats.ttest_rel([90.0, 95.0, 93.0], [91.5, 94.0, 90.0]).pvalue
    assert paired_p(one, other) == pytest.approx(expected)


def test_equal_differences_of_one_image_are_no_proof_and_large_ones_are() -> None:
    row = {seed: 90.0 + seed for seed in range(3)}
    one_more = {seed: value + 0.25 for seed, value in row.items()}
    far_more = {seed: value + 8.0 for seed, value in row.items()}
    assert paired_p(row, row, step=0.25) == 1.0
    assert paired_p(row, one_more, step=0.25) > 0.05
    assert paired_p(row, far_more, step=0.25) < 0.001


def test_holm_by_hand() -> None:
    # 4 × 0.01; then 3 × 0.02; 2 × 0.03 may not be less than that before it; 1 × 0.5.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_mean_and_standard_deviation_are_of_the_sample() -> None:
    assert mean_and_spread([90.0, 92.0, 94.0]) == (92.0, 2.0)
    assert mean_and_spread([90.0]) == (90.0, None)


def test_the_highest_is_named_and_what_differs_from_it() -> None:
    noise = [0.0, 0.3, -0.2, 0.1, -0.3]
    rows = {
        "best": {seed: 95.0 + noise[seed] for seed in range(5)},
        "near": {seed: 94.9 + noise[-1 - seed] for seed in range(5)},
        "far": {seed: 90.0 + noise[-1 - seed] for seed in range(5)},
    }
    assert distinguished(rows) == ("best", {"far"})


def test_the_correction_counts_the_rows_of_the_column() -> None:
    # One test at p = 0.03 shows a difference; among ten of which the others are certain it does not before its turn.
    highest = dict.fromkeys(range(4), 95.0)
    differences = np.array([1.0, 2.0, 3.0, 1.2])
    low = {seed: 95.0 - differences[seed] for seed in range(4)}
    p = paired_p(highest, low)
    assert 0.02 < p < 0.05
    assert distinguished({"highest": highest, "low": low}) == ("highest", {"low"})
    assert distinguished({"highest": highest, **{f"low {i}": low for i in range(3)}}) == ("highest", set())


def test_with_fewer_than_three_seeds_nothing_is_compared() -> None:
    two = {"a": {0: 99.0, 1: 99.0}, "b": {0: 50.0, 1: 50.0}}
    assert distinguished(two) == (None, set())
    assert distinguished({"a": dict.fromkeys(range(3), 99.0), "b": two["b"]}) == (None, set())
    three = {"b": {0: 90.0, 1: 91.0, 2: 90.5}, "c": {0: 50.0, 1: 50.0, 2: 51.0}}
    assert distinguished({"a": {0: 99.0, 1: 99.0}, **three}) == distinguished(three) == ("b", {"c"})
    without_common_seeds = {"a": dict.fromkeys(range(3), 99.0), "b": dict.fromkeys(range(3, 6), 98.0)}
    assert distinguished(without_common_seeds) == (None, set())


def null_runs(draw: np.random.Generator, count: int, images: int = 359) -> list[float]:
    """Accuracies of equal runs: every seed has a rate of its own, every image is right or wrong with that."""
    rates = np.clip(draw.normal(0.95, 0.008, size=count), 0.0, 1.0)
    return (100 * draw.binomial(images, rates) / images).tolist()


@pytest.mark.parametrize("n", [3, 5])
def test_equal_methods_differ_at_most_about_as_often_as_the_level_sets(n: int) -> None:
    draw = np.random.default_rng(n)
    apart = 0
    for _ in range(2000):
        one, other = (dict(enumerate(null_runs(draw, n))) for _ in range(2))
        apart += len(distinguished({"one": one, "other": other}, step=100 / 359).apart)
    # Of 2,000 with 5 % the standard deviation is 0.5 %.
    assert 0.03 < apart / 2000 < 0.065


def test_the_rate_counted_on_runs_is_that_of_many_fresh_ones() -> None:
    values = null_runs(np.random.default_rng(0), 400)
    for n in (3, 5):
        apart, columns = false_positives(values, n, step=smallest_step(values))
        assert apart == columns  # of two rows there is one comparison
        assert 0.03 < apart < 0.07
    apart, columns = false_positives(values, 5, rows=9, step=smallest_step(values))
    assert 0 < apart < 0.05 < columns < 0.15
    assert false_positives(values, 5, rows=9) == false_positives(values, 5, rows=9)


def test_columns_of_the_calibration_are_compared_as_those_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "PAIRS", 300)
    values = 95 + np.random.default_rng(1).normal(size=40)
    order = np.random.default_rng(0).random((300, 40)).argsort(axis=1)[:, :12]
    apart = []
    for column in values[order].reshape(300, 3, 4):
        rows = {str(row): dict(enumerate(percents.tolist())) for row, percents in enumerate(column)}
        apart.append(len(distinguished(rows, step=0.2).apart))
    expected = statistics.fmean(apart) / 2, statistics.fmean(number > 0 for number in apart)
    assert false_positives(values.tolist(), 4, rows=3, step=0.2) == pytest.approx(expected)


def test_the_interval_of_a_difference_is_scipys() -> None:
    one, other = 90 + np.random.default_rng(5).normal(size=(2, 6))
    mean, half = interval(dict(enumerate(one)), dict(enumerate(other)))
    low, high = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    mean, half = interval({0: 1.0, 1: 2.0}, {0: 0.0, 1: 1.0}, step=0.6)  # equal differences spread as rounding does
    assert (mean, half) == pytest.approx((1.0, stats.t.ppf(0.975, 1) * (0.06 / 2) ** 0.5))


def test_the_seeds_that_are_needed_reach_the_power_when_drawn() -> None:
    """Fresh differences of that mean and spread, so many at a time, are found to differ four times in five."""
    one = {0: 91.0, 1: 90.0, 2: 92.0}
    other = {0: 90.5, 1: 90.1, 2: 90.5}
    differences = np.array([0.5, -0.1, 1.5])
    n = seeds_needed(one, other)
    assert n is not None
    draw = np.random.default_rng(0)
    powers = []
    for count in (n, n - 1):
        drawn = draw.normal(differences.mean(), differences.std(ddof=1), (20_000, count))
        powers.append((stats.ttest_1samp(drawn, 0, axis=1).pvalue <= 0.05).mean())
    assert powers[0] == pytest.approx(0.8, abs=0.03)
    assert powers[1] < 0.805
    assert seeds_needed(one, one, step=0.1) is None
    assert seeds_needed(one, {seed: value - 0.01 for seed, value in other.items()}, step=0.1) == pytest.approx(n, abs=1)


def test_ranks_and_the_critical_difference_are_those_of_demsar() -> None:
    """Table 6 of Demšar 2006: four classifiers on fourteen datasets; the ranks of its last line, and CD = 1.25."""
    c45 = [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957]
    m = [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978]
    cf = [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.9751, 0.946]
    both = [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.975, 0.970]
    names = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
    columns = [dict(zip(names, values, strict=True)) for values in zip(c45, m, cf, both, strict=True)]
    ranks, critical = mean_ranks(columns)
    assert ranks["C4.5"] == pytest.approx(3.143, abs=1e-3)
    assert ranks["C4.5+m"] == pytest.approx(2.000, abs=1e-3)
    assert ranks["C4.5+cf"] == pytest.approx(2.893, abs=1e-3)
    assert ranks["C4.5+m+cf"] == pytest.approx(1.964, abs=1e-3)
    assert critical == pytest.approx(1.25, abs=0.005)
    assert set(mean_ranks([*columns, dict.fromkeys(names[1:], 0.5)])[0]) == set(names[1:])  # ranked where all are


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows of 3 need 6 runs, not 5"):
        false_positives([1.0] * 5, 3)


def test_the_step_is_what_one_image_is_worth() -> None:
    assert smallest_step([100 * k / 359 for k in (340, 342, 343, 350)]) == pytest.approx(100 / 359)
    assert smallest_step([90.0, 90.0]) == 0.0
