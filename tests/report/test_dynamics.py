"""The decoupled dynamics of a linear network with a linear predictor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl_bench.cli.report import main
from ssl_bench.config.settings import read_settings
from ssl_bench.report import dynamics

COMMITTED = Path(__file__).parents[2] / "experiments" / "directpred_dynamics"
SETTINGS = read_settings("dynamics.yaml", [])


def test_each_eigenvalue_moves_as_in_the_gradient_flow_of_whole_matrices() -> None:
    """W, W_p and W_a of three dimensions with common eigenvectors, by the gradient of the loss itself."""
    draw = np.random.default_rng(0)
    basis = np.linalg.qr(draw.normal(size=(3, 3)))[0]
    p, s = np.array([0.5, 0.3, 0.7]), np.array([0.05, 0.2, 0.4])
    weights, predictor = basis @ np.diag(np.sqrt(s)) @ basis.T, basis @ np.diag(p) @ basis.T
    teacher, dt, wide, eta = 0.8 * weights, 1e-4, 1 + SETTINGS["noise"], SETTINGS["weight_decay"]
    modes = [np.array([p[j], s[j], 0.8]) for j in range(3)]
    for _ in range(500):
        error = teacher - wide * predictor @ weights
        by_weights, by_predictor = predictor.T @ error - eta * weights, error @ weights.T - eta * predictor
        teacher = teacher + dt * SETTINGS["beta"] * (weights - teacher)
        weights, predictor = weights + dt * by_weights, predictor + dt * by_predictor
        modes = [mode + dt * np.array(dynamics.rates(*mode, SETTINGS)) for mode in modes]
    assert np.diag(basis.T @ predictor @ basis) == pytest.approx([mode[0] for mode in modes], abs=1e-4)
    assert np.diag(basis.T @ weights @ weights.T @ basis) == pytest.approx([mode[1] for mode in modes], abs=1e-4)
    assert np.diag(basis.T @ teacher @ np.linalg.inv(weights) @ basis) == pytest.approx(
        [mode[2] for mode in modes], abs=1e-4
    )


def test_the_commutator_falls_at_the_sum_of_two_k() -> None:
    """One small step of nearly aligned matrices; the predictor is kept symmetric, as in the paper."""
    p, s, tau, small, dt = np.array([0.5, 0.3]), np.array([0.05, 0.2]), 0.9, 1e-6, 1e-6
    turn = np.array([[1, -small], [small, 1]])
    f, w = np.diag(s), turn @ np.diag(p) @ turn.T
    wide, eta, rate = 1 + SETTINGS["noise"], SETTINGS["weight_decay"], SETTINGS["predictor_rate"]
    df = -wide * (w @ w @ f + f @ w @ w) + tau * (w @ f + f @ w) - 2 * eta * f
    dw = rate * (-wide / 2 * (w @ f + f @ w) + tau * f) - eta * w
    before, after = (a @ b - b @ a for a, b in ((f, w), (f + dt * df, w + dt * dw)))
    falls = (before[0, 1] - after[0, 1]) / before[0, 1] / dt
    assert falls == pytest.approx(sum(dynamics.alignment(p, s, tau, SETTINGS)), rel=1e-4)


def test_what_is_reached_is_the_fixed_point_and_too_much_weight_decay_leaves_nothing() -> None:
    found = dynamics.curves({**SETTINGS, "steps": 30000, "betas": [0.4]})
    wide = 1 + SETTINGS["noise"]
    for eta in (0.02, 0.1):
        p = (1 + np.sqrt(1 - 4 * eta * wide)) / 2 / wide
        assert dynamics.reached({**SETTINGS, "weight_decay": eta}) == pytest.approx(p)
        assert found["η", eta][-1, :3] == pytest.approx([p, p**2 / SETTINGS["predictor_rate"], 1.0], abs=2e-3)
    assert found["η", 0.3][-1, :2] == pytest.approx([0.0, 0.0], abs=1e-6)  # 0.3 is above 1 / 4(1 + σ²)
    assert dynamics.reached({**SETTINGS, "weight_decay": 0.3}) == 0.0


def test_the_committed_table_is_that_of_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["directpred_dynamics", f"out={tmp_path}"]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"figure.png", "results.csv", "table.md"}
    assert capsys.readouterr().out == (COMMITTED / "table.md").read_text(encoding="utf-8")


def test_lists_are_set_as_one_types_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["directpred_dynamics", "weight_decays=[0.0,0.05]", "betas=[0.5,1]", "steps=10"]) == 0
    shown = capsys.readouterr().out
    assert "0.05" in shown
    assert "0.3" not in shown.partition("Set")[0]


def test_a_value_out_of_range_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["directpred_dynamics", "betas=[0.0]"]) == 2
    assert capsys.readouterr().err.startswith("ssl_bench: betas=[0.0] is not allowed: betas is a list such as")


def test_what_is_not_reached_is_over_the_last_step() -> None:
    settings = {**SETTINGS, "steps": 10}
    shown = dynamics.table(settings, dynamics.curves(settings))
    negative = shown.ranked[f"η = {SETTINGS['weight_decays'][0]:g}"]
    assert [cell.text for cell in negative[-2:]] == ["over 10", "over 10"]
