"""The linear probe, six learning rates at once and chosen among, against one fit of scikit-learn."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from benchmarks.features import CLASSES, clustered
from benchmarks.measurement import Measurement, alternate
from ssl_bench.config.compose import compose
from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.linear import LinearProbe

BASELINE = "scikit-learn's LogisticRegression, 100 iterations"
WIDTH = 512


def measure(repeats: int, *, small: bool, device: torch.device) -> list[Measurement]:
    """Time of a fit, and the accuracy it reaches on other features."""
    train_rows, test_rows = (500, 100) if small else (50_000, 10_000)
    x, labels = clustered(train_rows, WIDTH, seed=1)
    test = Features(*clustered(test_rows, WIDTH, seed=2), torch.arange(test_rows))
    everything = Features(x, labels, torch.arange(train_rows))
    held_out = torch.arange(train_rows) < train_rows // 10
    train, validation = everything.rows(~held_out), everything.rows(held_out)
    probe = LinearProbe(**vars(compose(["scale=cpu"]).evaluation.linear), seed=0)

    parts = _on(device, train), _on(device, validation)
    queries = test.x.to(device)

    def ours() -> Tensor:
        return probe.refit(probe.fit(*parts, CLASSES), *parts, CLASSES).predict(queries)

    def baseline() -> Tensor:
        return _logistic_regression(everything, test)

    pairs = alternate(ours, baseline, repeats, turns=1, device=device)
    way = f"SGD, {probe.epochs} epochs, the best of {len(probe.learning_rates)} learning rates, refitted"
    case = f"{train_rows:,} × {WIDTH} features, {CLASSES} classes"
    return [
        Measurement(
            benchmark="probe",
            ours=way,
            baseline=BASELINE,
            case=case,
            unit="s",
            pairs=pairs,
            meaning="times as fast as the baseline",
            inverse=True,
        ),
        Measurement(
            benchmark="probe",
            ours=way,
            baseline=BASELINE,
            case=f"accuracy, {case}",
            unit="%",
            pairs=[(_percent(ours(), test), _percent(baseline(), test))],
            meaning="",
        ),
    ]


def _on(device: torch.device, features: Features) -> Features:
    return Features(*(part.to(device) for part in (features.x, features.labels, features.index)))


def _logistic_regression(train: Features, test: Features) -> Tensor:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(train.x.numpy(), train.labels.numpy())
    return torch.from_numpy(classifier.predict(test.x.numpy()))


def _percent(predictions: Tensor, test: Features) -> float:
    return 100 * float((predictions.cpu() == test.labels).float().mean())
