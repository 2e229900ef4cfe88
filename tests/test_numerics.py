"""Equal options give equal numbers for as long as `NUMERICS` and the versions of protocols stay."""

from __future__ import annotations

import json
from typing import Any

import pytest

import numerics
from ssl_bench.config.options import GROUPS
from ssl_bench.results.fingerprint import NUMERICS

KEPT: dict[str, Any] = json.loads(numerics.FILE.read_text(encoding="utf-8"))
RENEW = "if that is meant, raise NUMERICS (or the protocol's version) and renew with python tests/numerics.py"


def test_the_kept_numbers_are_those_of_this_version_and_of_every_method() -> None:
    assert KEPT["numerics"] == NUMERICS, RENEW
    assert sorted(KEPT["losses"]) == sorted(KEPT["weights"]) == sorted(GROUPS["method"])


def test_orders_random_numbers_and_initial_weights_are_those_of_this_version() -> None:
    found = numerics.drawn()
    assert {name: found[name] for name in ("order", "window")} == {name: KEPT[name] for name in ("order", "window")}
    assert found["uniform"] == KEPT["uniform"], RENEW
    assert found["weights"] == pytest.approx(KEPT["weights"], rel=1e-6), RENEW


def test_scores_of_raw_pixels_are_those_of_the_protocols_versions() -> None:
    found = numerics.scores()
    assert {name: score["version"] for name, score in found.items()} == {
        name: score["version"] for name, score in KEPT["scores"].items()
    }
    one_image = 100 / 359
    for name, score in found.items():
        assert score["percent"] == pytest.approx(KEPT["scores"][name]["percent"], abs=one_image + 1e-6), RENEW


@pytest.mark.slow
@pytest.mark.parametrize("method", GROUPS["method"])
def test_the_first_losses_of_every_method_are_those_of_this_version(method: str) -> None:
    assert numerics.losses(method) == pytest.approx(KEPT["losses"][method], rel=1e-3, abs=1e-3), RENEW
