"""What CLBO's step sizes are derived from, found again by search and by simulation."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ssl_bench.config.compose import compose
from ssl_bench.schedules import PEAKS, proximal_weight, teacher_step


@pytest.mark.parametrize(("schedule", "power"), [("constant", 1), ("decay", 2)])
def test_the_peaks_are_the_largest_products_of_strength_and_learning_rate(schedule: str, power: int) -> None:
    progress = (number / 10_000 for number in range(10_001))
    assert PEAKS[schedule] == pytest.approx(max(t**power * (1 + math.cos(math.pi * t)) / 2 for t in progress), rel=5e-3)


EPOCHS, BASE, KAPPA = 200, 0.06, 0.01
USUAL = {
    "optimizer": "sgd",
    "lr": BASE,
    "lr_schedule": "epoch",
    "scale_lr_with_batch": False,
    "images": 1024,
    "momentum": 0.9,
    "epochs": EPOCHS,
    "lookahead": 2,
    "teacher_rule": "sgd",
    "teacher_schedule": "constant",
}


def slowest(weight: float, settings: dict[str, Any]) -> float:
    """The least speed of the student under a steady gradient, as a share of that without the proximal term."""
    muon, decays = settings["optimizer"] == "muon", settings["teacher_schedule"] == "decay"
    momentum = 0.0 if muon else settings["momentum"]  # Muon's steps are as long whatever the gradient
    every = 1 if settings["teacher_rule"] == "ema" else settings["lookahead"]
    peak = BASE * 4 if settings["scale_lr_with_batch"] else BASE
    speeds = []
    for epoch in range(1, EPOCHS + 1, 3):
        rate = peak if settings["lr_schedule"] == "constant" else peak * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2
        step = 1 / epoch if decays else KAPPA
        student = teacher = velocity = 0.0
        settled = 60 * math.ceil(1 / step)  # steps until the gap is
        for number in range(settled + 1000):
            if number == settled:
                start = student
            pull = weight * epoch * (student - teacher)
            velocity = momentum * velocity + 1.0 + pull
            student -= rate * velocity
            if number % every == every - 1:
                teacher += step * (student - teacher)
        speeds.append((start - student) / 1000 / (rate / (1 - momentum)))
    return min(speeds)


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"teacher_schedule": "decay"},
        {"optimizer": "muon"},
        {"teacher_rule": "ema"},
        {"scale_lr_with_batch": True},
        {"lr_schedule": "constant"},
    ],
    ids=str,
)
def test_where_the_term_is_strongest_the_student_drifts_at_two_thirds_of_its_speed(other: dict[str, Any]) -> None:
    settings = USUAL | other
    kappa = teacher_step(schedule=settings["teacher_schedule"], constant=KAPPA)
    weight = proximal_weight(**settings, teacher_step=kappa)
    assert slowest(weight, settings) == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_without_a_known_size_of_the_gradient_there_is_no_proximal_term(optimizer: str) -> None:
    assert proximal_weight(**USUAL | {"optimizer": optimizer}, teacher_step=KAPPA) == 0.0
    assert compose(["method=clbo", f"optimizer.name={optimizer}"]).method.options["proximal"] == 0.0


@pytest.mark.parametrize(
    ("overrides", "factor"),
    [
        ("method.teacher_rule=ema", 2.0),
        ("optimizer.scale_lr_with_batch=true batch_size=1024", 0.25),
        ("optimizer.scale_lr_with_batch=true trainer.accumulate=2", 0.5),
        ("optimizer.schedule=constant", PEAKS["constant"]),
    ],
)
def test_the_options_that_change_the_steps_change_the_strength(overrides: str, factor: float) -> None:
    usual, other = (
        compose(["method=clbo", "scale=paper", *some.split()]).method.options["proximal"] for some in ("", overrides)
    )
    assert other == pytest.approx(factor * usual)
