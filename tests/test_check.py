"""The certificate: every method on two and three ranks, and what it says of methods that fail."""

from __future__ import annotations

import pytest
import torch

from program import Program
from ssl_bench import check
from ssl_bench.options import GROUPS


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_every_method_trains_in_several_processes_as_in_one_and_resumes(program: Program, world: int) -> None:
    done = program(f"world={world}", module="ssl_bench.check", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout for name in GROUPS["method"])
    assert "Every method holds." in done.stdout


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("method=byoll", "method=byoll is unknown; did you mean byol?"),
        ("world=5", "world=5 does not divide the 12 images"),
        ("world=1", "world=1 is not allowed: world is a whole number at least 2 and at most 12"),
        ("worlds=2", "option worlds is unknown; did you mean world?"),
    ],
)
def test_a_wrong_word_is_answered_in_one_line(capsys: pytest.CaptureFixture[str], word: str, part: str) -> None:
    assert check.main([word]) == 2
    assert part in capsys.readouterr().err


def test_help_names_the_columns_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("alone", "synced", "ranks", "resume", "bf16", "method=all", "world=2"))


def test_differences_are_relative_and_names_must_agree() -> None:
    one = {"a": torch.tensor([100.0, 1.0]), "b": torch.tensor([1.0])}
    assert check.difference(one, {"a": torch.tensor([100.0, 2.0]), "b": torch.tensor([1.0])}) == pytest.approx(0.01)
    assert check.difference(one, {"a": one["a"]}) == float("inf")


def test_ranks_that_differ_from_one_process_or_from_each_other_are_seen() -> None:
    def trace(loss: float, gradient: float, state: float) -> check.Trace:
        named = [{"w": torch.tensor([value])} for value in (gradient, state)]
        return {"losses": [loss], "gradients": [named[0]], "state": named[1]}

    same = check.compare(trace(1, 2, 3), [trace(1, 2, 3), trace(1, 2, 3)])
    assert (same["loss"], same["gradient"], same["state"], same["replicas"]) == (0, 0, 0, True)
    half = check.compare(trace(1, 2, 3), [trace(1, 1, 3), trace(1, 1, 3)])
    assert half["gradient"] == pytest.approx(0.5)
    apart = check.compare(trace(1, 2, 3), [trace(1, 2, 3), trace(1, 2, 3.3)])
    assert not apart["replicas"]
    assert apart["state"] == pytest.approx(0.1)
