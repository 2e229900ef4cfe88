"""Which networks are scored when, on what, and what is forgotten of older protocols."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from ssl_bench.callbacks.accuracy_monitor import AccuracyMonitor, Elsewhere
from ssl_bench.evaluation.score import Score
from ssl_bench.methods.base import Method
from ssl_bench.results.history import History


class Scoring:
    """In place of an evaluator: keeps what it is asked for."""

    def __init__(self, **versions: int) -> None:
        self.protocols = {name: SimpleNamespace(version=version) for name, version in versions.items()}
        self.asked: list[tuple[str, str, str]] = []

    def features(self, backbone: str, device: torch.device) -> str:
        return f"features of {backbone}"

    def score(self, splits: str, names: list[str], on: str) -> dict[str, Score]:
        self.asked += [(splits.removeprefix("features of "), name, on) for name in names]
        return {name: Score(50.0, None, {}) for name in names}


def monitor(evaluator: Scoring, history: History, elsewhere: Elsewhere | None = None) -> AccuracyMonitor:
    return AccuracyMonitor(
        evaluator,  # type: ignore[arg-type]
        history,
        monitor="knn1",
        monitor_every=2,
        curves=["knn1", "linear"],
        curves_every=4,
        elsewhere=elsewhere,
    )


METHOD: Any = Mock(spec=Method, evaluated="teacher", device=torch.device("cpu"))
METHOD.networks.return_value = {"teacher": "t", "student": "s"}


def test_the_monitor_sees_no_test_image_and_the_last_epoch_is_kept_for_the_final_table() -> None:
    evaluator, history = Scoring(knn1=1, linear=2), History()
    callback = monitor(evaluator, history)
    asked = {}
    for epoch in range(1, 8):
        trainer: Any = SimpleNamespace(current_epoch=epoch - 1, max_epochs=7)
        callback.on_train_epoch_end(trainer, METHOD)
        history.close()
        asked[epoch] = evaluator.asked
        evaluator.asked = []
        assert callback.last == ({"teacher": "features of t", "student": "features of s"} if epoch == 7 else {})
    everything = [
        (network, name, on) for network in "ts" for on in ("validation", "test") for name in ("knn1", "linear")
    ]
    alone = [("t", "knn1", "validation")]
    assert asked == {1: [], 2: alone, 3: [], 4: everything, 5: [], 6: alone, 7: everything}


def test_a_second_dataset_is_scored_at_the_same_epochs_under_names_of_its_own() -> None:
    class There(Scoring):
        def features(self, backbone: str, device: torch.device) -> str:
            return f"{backbone} there"

    evaluator, second, history = Scoring(knn1=1, linear=2), There(knn1=1, linear=2), History()
    callback = monitor(evaluator, history, Elsewhere("stl10", second))  # type: ignore[arg-type]
    for epoch in range(1, 8):
        trainer: Any = SimpleNamespace(current_epoch=epoch - 1, max_epochs=7)
        callback.on_train_epoch_end(trainer, METHOD)
        history.add({"epoch": epoch})
        history.close()
    assert second.asked == [(f"{network} there", name, on) for network, name, on in evaluator.asked]
    curves = history.accuracy_curves()
    own = {name: points for name, points in curves.items() if ":" not in name}
    assert len(own) == 8
    assert {name: points for name, points in curves.items() if ":" in name} == {
        f"stl10:{name}": points for name, points in own.items()
    }


@pytest.mark.parametrize(
    ("state", "forgotten"),
    [(None, True), ({"versions": {"knn1": 1, "linear": 1}}, True), ({"versions": {"knn1": 1, "linear": 2}}, False)],
)
def test_a_resumed_run_forgets_the_curves_of_another_version(state: dict[str, Any] | None, forgotten: bool) -> None:
    row = {
        "epoch": 1.0,
        "method/linear": 3.0,
        "validation/knn1/t": 1.0,
        "test/linear/t": 2.0,
        "validation/linear/s": 4.0,
        "stl10:test/linear/s": 4.0,
    }
    history = History()
    callback = monitor(Scoring(knn1=1, linear=2), history)
    if state is not None:
        callback.load_state_dict(state)
    history.load_state_dict({"rows": [row], "open": {}})
    trainer: Any = None
    callback.on_fit_start(trainer, METHOD)
    kept = {name: value for name, value in row.items() if "/linear/" not in name}
    assert history.rows == [kept if forgotten else row]
    assert callback.state_dict() == {"versions": {"knn1": 1, "linear": 2}}
