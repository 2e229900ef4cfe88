"""What is refused before it is built."""

from __future__ import annotations

import pytest
import torch

from ssl_bench.config.compose import compose
from ssl_bench.errors import UserError
from ssl_bench.files import name_of
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


def kept_under(*overrides: str, other_pixel: bool = False, **network: object) -> dict[str, str]:
    """The names under which scores of random weights and of raw pixels are kept."""
    config = compose([*WORDS, *overrides])
    data = parts.build_data(config)
    if other_pixel:
        data.splits["test"].images[0, 0, 0, 0] += 1
    clean = parts.clean_arguments(config, data.dataset)
    evaluator = parts.build_evaluator(config, data, clean)
    found = parts.baselines(config, data, evaluator, torch.device("cpu"), network=network, clean=clean)
    return {name: name_of(identity) for name, (identity, _) in found.items()}


def test_baselines_are_kept_apart_by_all_that_their_scores_depend_on() -> None:
    alike = [kept_under(), kept_under()]
    assert alike[0] == alike[1]
    apart = [
        alike[0],
        kept_under(other_pixel=True),
        kept_under("subset=200"),
        kept_under("labels=100"),
        kept_under("evaluation.linear.epochs=7"),
        kept_under("evaluation.protocols=[knn1]"),
    ]
    of_weights = [kept_under("seed=1"), kept_under(depth=34)]
    for name, different in (("random", [*apart, *of_weights]), ("pixels", apart)):
        assert len({found[name] for found in different}) == len(different)
    assert all(found["pixels"] == alike[0]["pixels"] for found in of_weights)


def test_the_seed_orders_the_images_and_draws_their_views() -> None:
    one, other = (next(iter(parts.build_data(compose([*WORDS, f"seed={s}"])).train_dataloader())) for s in (0, 3))
    assert (one.place.seed, other.place.seed) == (0, 3)
    assert not torch.equal(one.index, other.index)


def test_the_random_baseline_is_of_the_runs_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "random_scores", lambda backbone, *_: {"first": next(backbone.parameters()).detach()})
    found = []
    for seed in (0, 3):
        config = compose([*WORDS, f"seed={seed}"])
        data = parts.build_data(config)
        clean = parts.clean_arguments(config, data.dataset)
        network = {**config.backbone.as_dict(), "channels": 1}
        evaluator = parts.build_evaluator(config, data, clean)
        random = parts.baselines(config, data, evaluator, torch.device("cpu"), network=network, clean=clean)["random"]
        start = next(parts.build_method(config, data.dataset, data).student.backbone.parameters())
        found.append(random[1]()["first"])
        assert torch.equal(found[-1], start)
    assert not torch.equal(*found)


def test_the_evaluator_scores_on_the_parts_of_the_data() -> None:
    config = compose(["dataset=digits", "scale=paper", "method=simclr", "trainer.accelerator=cpu"])
    data = parts.build_data(config)
    evaluator = parts.build_evaluator(config, data, parts.clean_arguments(config, data.dataset))
    for name in ("bank", "probe", "validation"):
        assert torch.equal(evaluator.loaders[name]().index, getattr(data.parts, name))
    assert len(data.parts.bank) == len(data.parts.probe) + len(data.parts.validation)
    assert evaluator.loaders["test"]().images is data.splits["test"]
