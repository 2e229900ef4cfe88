"""What CLBO's step sizes are derived from, found again by search and by simulation."""

from __future__ import annotations

import math

import pytest

from ssl_bench.schedules import PEAKS, proximal_weight, teacher_step


@pytest.mark.parametrize(("schedule", "power"), [("constant", 1), ("decay", 2)])
def test_the_peaks_are_the_largest_products_of_strength_and_learning_rate(schedule: str, power: int) -> None:
    progress = (number / 10_000 for number in range(10_001))
    assert PEAKS[schedule] == pytest.approx(max(t**power * (1 + math.cos(math.pi * t)) / 2 for t in progress), rel=5e-3)


@pytest.mark.parametrize("schedule", ["constant", "decay"])
def test_where_the_term_is_strongest_the_student_drifts_at_two_thirds_of_its_speed(schedule: str) -> None:
    epochs, lookahead, base, momentum = 200, 2, 0.06, 0.9
    kappa = teacher_step(schedule=schedule, constant=0.01)
    weight = proximal_weight(
        rule="sgd",
        lr=base,
        momentum=momentum,
        epochs=epochs,
        lookahead=lookahead,
        teacher_step=kappa,
        teacher_schedule=schedule,
    )
    speeds = []
    for epoch in range(1, epochs + 1, 3):
        rate = base * (1 + math.cos(math.pi * epoch / epochs)) / 2
        step = kappa / epoch if schedule == "decay" else kappa
        student = teacher = velocity = 0.0
        settled = 60 * math.ceil(1 / step)  # steps until the gap is
        for number in range(settled + 1000):
            if number == settled:
                start = student
            velocity = momentum * velocity + 1.0 + weight * epoch * (student - teacher)
            student -= rate * velocity
            if number % lookahead == lookahead - 1:
                teacher += step * (student - teacher)
        speeds.append((start - student) / 1000 / (rate / (1 - momentum)))
    assert min(speeds) == pytest.approx(2 / 3, abs=0.01)


def test_under_muon_the_term_acts_apart_from_the_momentum() -> None:
    epochs, lookahead, base, kappa = 200, 2, 0.03, 0.01
    weight = proximal_weight(
        rule="muon",
        lr=base,
        momentum=0.9,
        epochs=epochs,
        lookahead=lookahead,
        teacher_step=kappa,
        teacher_schedule="constant",
    )
    speeds = []
    for epoch in range(1, epochs + 1, 3):
        rate = base * (1 + math.cos(math.pi * epoch / epochs)) / 2
        student = teacher = 0.0
        for number in range(7000):
            if number == 6000:
                start = student
            student += rate * weight * epoch * (teacher - student) - rate  # as long whatever the gradient
            if number % lookahead == lookahead - 1:
                teacher += kappa * (student - teacher)
        speeds.append((start - student) / 1000 / rate)
    assert min(speeds) == pytest.approx(2 / 3, abs=0.01)
