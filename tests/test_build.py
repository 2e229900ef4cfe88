"""What is refused before it is built."""

from __future__ import annotations

import pytest
import torch

from ssl_bench.config.compose import compose
from ssl_bench.errors import UserError
from ssl_bench.training import build as parts
from ssl_bench.training.build import build

WORDS = ["dataset=digits", "scale=smoke", "method=simclr", "trainer.accelerator=cpu"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["dataset.size=100000"],
            "batch_size=32 images at dataset.size=100000 pixels need 2.6 TB of memory, more than",
        ),
        (["batch_size=1000000000"], "batch_size=1000000000 images at dataset.size=16 pixels need 2.0 TB of memory"),
        (
            ["evaluation.batch_size=9000000000"],
            "evaluation.batch_size=9000000000 images at dataset.size=16 pixels need",
        ),
    ],
)
def test_a_batch_beyond_any_memory_is_foreseen(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        build(compose([*WORDS, *overrides]))
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(("room", "place"), [(None, "cuda"), (10**9, "cuda"), (10**5, "cpu")])
def test_raw_pixels_are_scored_on_a_gpu_that_has_room_for_them(
    room: int | None, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(WORDS)
    data = parts.build_data(config)
    data.setup()
    device = torch.device("cuda")
    clean = parts.clean_arguments(config, data.dataset)
    evaluator = parts.build_evaluator(config, data, clean)
    placed: list[str] = []
    monkeypatch.setattr(parts, "free_memory", lambda device: room)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(evaluator, "pixels", lambda device: placed.append(device.type))
    monkeypatch.setattr(evaluator, "score", lambda splits, names, on: {})
    parts.baselines(config, data, evaluator, device, network={}, clean=clean)["pixels"][1]()
    assert placed == [place]
