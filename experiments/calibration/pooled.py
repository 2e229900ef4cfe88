"""How often a test that pools the spread of all rows distinguishes equal rows.

    python experiments/calibration/pooled.py

Draws normal rows with equal means and the standard deviations of Table 3's rows. The test takes seeds as blocks: each
row's mean beside another's, with the residual variance of the two-way model of rows and seeds.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

DRAWS = 4000
LEVEL = 0.05
RESULTS = Path(__file__).parents[1] / "table3" / "results.csv"
REFERENCES = ("Supervised", "CLBO, K × epochs")
WITH_TEACHER = ("CLBO",)  # rows of which the teacher is deployed


def accuracies(protocol: str) -> np.ndarray:
    """``[rows, seeds]`` of the rows that Table 3 compares, of the network that each deploys, in %."""
    found = defaultdict(list)
    with RESULTS.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            network = "teacher" if line["row"] in WITH_TEACHER else "student"
            if (line["protocol"], line["network"]) == (protocol, network) and line["row"] not in REFERENCES:
                found[line["row"]].append(float(line["percent"]))
    return np.array(list(found.values()))


def distinguished(spreads: np.ndarray, seeds: int, rng: np.random.Generator) -> np.ndarray:
    """``[rows, rows]``: the share of draws in which the pooled test distinguishes two rows of equal means."""
    rows = len(spreads)
    freedom = (rows - 1) * (seeds - 1)
    y = rng.normal(size=(DRAWS, rows, seeds)) * spreads[:, None]
    means = y.mean(2)
    residuals = y - y.mean(1, keepdims=True) - means[:, :, None] + y.mean((1, 2), keepdims=True)
    pooled = (residuals**2).sum((1, 2)) / freedom
    least = stats.t.ppf(1 - LEVEL / 2, freedom) * np.sqrt(2 * pooled / seeds)
    return (abs(means[:, :, None] - means[:, None]) > least[:, None, None]).mean(0)


def main() -> None:
    rng = np.random.default_rng(0)
    for protocol in ("knn1", "linear"):
        y = accuracies(protocol)
        spreads = y.std(1, ddof=1)
        shares = distinguished(spreads, y.shape[1], rng)
        widest = np.argsort(spreads)[-2:]
        print(
            f"{protocol}: standard deviations differ {spreads.max() / spreads.min():.1f} times"
            f" (Bartlett's test: p = {stats.bartlett(*y).pvalue:.2f});"
            f" {shares[np.triu_indices(len(y), 1)].mean():.1%} of all pairs,"
            f" {shares[tuple(widest)]:.1%} of the two rows with the widest spreads"
        )


if __name__ == "__main__":
    main()
