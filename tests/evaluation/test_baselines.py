from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn

from ssl_bench.data.images import Images
from ssl_bench.data.loader import BatchLoader
from ssl_bench.evaluation import baselines
from ssl_bench.evaluation.baselines import calibration_batches, kept, random_scores
from ssl_bench.evaluation.evaluator import Evaluator, Scores
from ssl_bench.evaluation.features import Splits
from ssl_bench.evaluation.score import On, Score


class Clean(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 255


def loader(count: int, batch_size: int, first: int = 0) -> BatchLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (600, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return BatchLoader(
        Images(images, torch.arange(600) % 2),
        torch.arange(first, first + count),
        lambda epoch: torch.arange(count),
        batch_size=batch_size,
        rank=0,
        world=1,
        seed=0,
        drop_last=False,
    )


class Statistics:
    """A protocol whose score is what it sees: the mean of the features, that of validation or test."""

    name, version = "statistics", 1

    def __init__(self, score: Callable[[Tensor, On], float | None]) -> None:
        self.score = score

    def evaluate(self, splits: Splits, on: On, budget: int) -> Score:
        return Score(self.score(getattr(splits, on).x, on), None, {})


def evaluator(*protocols: Statistics, bank: int = 300, batch_size: int = 256) -> Evaluator:
    return Evaluator(
        clean=Clean(),
        loaders={
            "bank": lambda: loader(bank, batch_size),
            "probe": lambda: loader(bank, batch_size),
            "validation": lambda: loader(50, batch_size, 300),
            "test": lambda: loader(50, batch_size, 350),
        },
        protocols=protocols,  # type: ignore[arg-type]
        classes=2,
        memory=1 << 20,
    )


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 4), nn.BatchNorm2d(3), nn.Flatten())


def is_measured(x: Tensor) -> bool:
    return bool(abs(x.mean()) < 0.2 and abs(x.std() - 1) < 0.2)


def score(protocol: Statistics, bank: int = 300, batch_size: int = 256) -> Score:
    scored = evaluator(protocol, bank=bank, batch_size=batch_size)
    return random_scores(network(), scored, loader(bank, batch_size), torch.device("cpu"), ["statistics"])["statistics"]


@pytest.mark.parametrize("better", ["untouched", "measured"])
def test_validation_chooses_the_statistics_of_random_weights_and_test_does_not(better: str) -> None:
    def percent(x: Tensor, on: On) -> float:
        good = is_measured(x) == (better == "measured")
        return 70.0 if good == (on == "validation") else 30.0

    found = score(Statistics(percent))
    assert found.percent == 30
    assert found.notes == {"statistics": better}


@pytest.mark.parametrize("percent", [lambda x, on: 50.0, lambda x, on: None if on == "validation" else 50.0])
def test_statistics_stay_untouched_where_validation_does_not_prefer_others(
    percent: Callable[[Tensor, On], float | None],
) -> None:
    assert score(Statistics(percent)).notes == {"statistics": "untouched"}


@pytest.mark.parametrize(("bank", "batch_size"), [(257, 256), (2, 1), (300, 1), (300, 299), (1, 256), (0, 256)])
def test_no_number_of_images_keeps_random_weights_from_being_scored(bank: int, batch_size: int) -> None:
    def percent(x: Tensor, on: On) -> float:
        return 100.0 * is_measured(x)

    found = score(Statistics(percent), bank, batch_size)
    assert found.notes["statistics"] == ("measured" if bank > 2 else "untouched")


@pytest.mark.parametrize("batch_size", [1, 100, 256])
def test_calibration_sees_the_first_images_in_equal_batches_however_they_are_loaded(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "CALIBRATION_IMAGES", 513)
    batches = list(calibration_batches(loader(600, batch_size), Clean(), torch.device("cpu")))
    assert [len(batch) for batch in batches] == [171, 171, 171]
    assert torch.equal(torch.cat(batches), loader(600, 600).images.images[:513].float() / 255)


SCORES = {
    "knn1": Score(100 / 3, torch.tensor([0, 1, 2]), {"k": 1, "bank": 7}),
    "linear": Score(None, None, {"reason": "there are no labelled images in test"}),
}


@pytest.fixture
def computed() -> list[int]:
    return []


def computing(calls: list[int]) -> Callable[[], Scores]:
    def compute() -> Scores:
        calls.append(1)
        return SCORES

    return compute


def same(found: Scores) -> bool:
    return all(
        (score.percent, score.notes) == (SCORES[name].percent, SCORES[name].notes)
        and (score.predictions is None) == (SCORES[name].predictions is None)
        and (score.predictions is None or torch.equal(score.predictions, SCORES[name].predictions))  # type: ignore[arg-type]
        for name, score in found.items()
    ) and list(found) == list(SCORES)


def test_scores_are_computed_once_and_come_back_whole(tmp_path: Path, computed: list[int]) -> None:
    for _ in range(2):
        assert same(kept(tmp_path, {"seed": 0}, computing(computed)))
    assert len(computed) == 1
    kept(tmp_path, {"seed": 1}, computing(computed))
    assert len(computed) == 2


@pytest.mark.parametrize("damage", ["cut", "emptied", "another figure", "nested", "a list", "no file"])
def test_a_damaged_file_is_computed_and_written_again(tmp_path: Path, computed: list[int], damage: str) -> None:
    kept(tmp_path, {"seed": 0}, computing(computed))
    (path,) = tmp_path.glob("*.json")
    text = path.read_text()
    if damage == "no file":
        path.unlink()
        path.mkdir()
    else:
        path.write_text(
            {
                "cut": text[:-20],
                "emptied": "",
                "another figure": text.replace("33.3", "43.3"),
                "nested": "[" * 100_000,
                "a list": json.dumps([1]),
            }[damage]
        )
    assert same(kept(tmp_path, {"seed": 0}, computing(computed)))
    assert len(computed) == 2
    if damage != "no file":
        assert path.read_text() == text


def test_while_another_process_writes_them_scores_are_computed_and_the_file_is_left_to_it(
    tmp_path: Path, computed: list[int]
) -> None:
    kept(tmp_path, {"seed": 0}, computing(computed))
    (path,) = tmp_path.glob("*.json")
    path.unlink()
    with FileLock(f"{path}.lock"):
        assert same(kept(tmp_path, {"seed": 0}, computing(computed)))
    assert len(computed) == 2
    assert not path.exists()


def test_scores_are_given_where_they_cannot_be_kept(tmp_path: Path, computed: list[int]) -> None:
    (tmp_path / "file").touch()
    assert same(kept(tmp_path / "file" / "baselines", {"seed": 0}, computing(computed)))
