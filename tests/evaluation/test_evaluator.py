from __future__ import annotations

import pytest
import torch
from torch import nn

from ssl_bench.data.images import Images
from ssl_bench.data.loader import BatchLoader
from ssl_bench.evaluation import evaluator as room
from ssl_bench.evaluation.evaluator import Evaluator
from ssl_bench.evaluation.features import Features, extract
from ssl_bench.evaluation.finetune import FineTuning
from ssl_bench.evaluation.linear import LinearProbe
from ssl_bench.evaluation.protocols import protocols

TUNING = FineTuning((0.1,), steps=1, batch_size=2, momentum=0.9, weight_decay=0.0, flip=0.0)
PROBE = LinearProbe((0.1,), epochs=1, batch_size=16, momentum=0.9, weight_decay=0.0, seed=0)
IMAGES = Images(
    torch.randint(256, (90, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
    torch.arange(90) % 3,
)
CPU = torch.device("cpu")


def evaluator(bank: torch.Tensor, probe: torch.Tensor, validation: torch.Tensor) -> Evaluator:
    def loader(index: torch.Tensor) -> BatchLoader:
        return BatchLoader(
            IMAGES,
            index,
            lambda epoch: torch.arange(len(index)),
            batch_size=7,
            rank=0,
            world=1,
            seed=0,
            drop_last=False,
        )

    parts = {"bank": bank, "probe": probe, "validation": validation, "test": torch.arange(80, 90)}
    return Evaluator(
        clean=nn.Identity(),
        loaders={name: lambda index=index: loader(index) for name, index in parts.items()},
        protocols=protocols(["knn1", "linear"], PROBE, TUNING, refit=True),
        classes=3,
        memory=1 << 20,
    )


class Pixels(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).float() / 255


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images were embedded, each time that some were."""
    seen: list[int] = []

    def counting(*given: object, **options: object) -> Features:
        features = extract(*given, **options)  # type: ignore[arg-type]
        seen.append(len(features))
        return features

    monkeypatch.setattr(room, "extract", counting)
    return seen


PUBLISHED = (torch.arange(80), torch.arange(10, 80), torch.arange(10))
HELD_OUT = (torch.arange(10, 60), torch.arange(10, 60), torch.arange(10))


def test_the_live_monitor_embeds_bank_and_validation_alone(embedded: list[int]) -> None:
    scored = evaluator(*HELD_OUT)
    scored.score(scored.features(Pixels(), CPU), ["knn1"], "validation")
    assert embedded == [50, 10]


def test_what_the_bank_holds_is_not_embedded_again(embedded: list[int]) -> None:
    scored = evaluator(*PUBLISHED)
    splits = scored.features(Pixels(), CPU)
    for on in ("validation", "test"):
        scored.score(splits, ["knn1", "linear"], on)
    assert sorted(embedded) == [10, 80]
    for part, index in (("bank", PUBLISHED[0]), ("train", PUBLISHED[1]), ("validation", PUBLISHED[2])):
        features = getattr(splits, part)
        assert torch.equal(features.index, index)
        assert torch.equal(features.x, IMAGES.images[index].flatten(1) / 255)
        assert torch.equal(features.labels, IMAGES.labels[index])


def test_a_protocol_is_evaluated_once_for_the_same_features() -> None:
    scored = evaluator(*HELD_OUT)
    splits = scored.pixels(torch.device("cpu"))
    first = scored.score(splits, ["linear", "knn1"], "test")
    assert all(scored.score(splits, [name], "test")[name] is score for name, score in first.items())
    assert scored.score(splits, ["knn1"], "validation")["knn1"] is not first["knn1"]


@pytest.mark.parametrize("on", ["validation", "test"])
def test_without_any_labelled_image_every_protocol_states_so(on: str) -> None:
    nothing = torch.arange(0)
    scored = evaluator(nothing, nothing, nothing)
    for score in scored.score(scored.features(Pixels(), CPU), ["knn1", "linear"], on).values():  # type: ignore[arg-type]
        assert score.percent is None
