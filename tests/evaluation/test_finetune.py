"""A network trained further on labelled images, against loops written from the definition."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.data.images import Images
from ssl_bench.data.loader import BatchLoader
from ssl_bench.evaluation.baselines import random_scores
from ssl_bench.evaluation.draws import balanced_draws
from ssl_bench.evaluation.evaluator import Evaluator
from ssl_bench.evaluation.features import Splits
from ssl_bench.evaluation.finetune import FineTuning, in_epochs, moved
from ssl_bench.evaluation.linear import LinearProbe
from ssl_bench.evaluation.protocols import protocols
from ssl_bench.evaluation.score import Score

PROBE = LinearProbe((0.1,), epochs=1, batch_size=16, momentum=0.9, weight_decay=0.0, seed=0)
TUNING = FineTuning((0.02, 0.3), steps=12, batch_size=16, momentum=0.9, weight_decay=0.01, flip=0.0)
NAMES = ["finetune", "finetune_1percent", "finetune_10percent"]
CPU = torch.device("cpu")
TRAIN, VALIDATION, TEST = torch.arange(300), torch.arange(300, 360), torch.arange(360, 420)


def images(side: int = 4) -> Images:
    """Of three classes, which differ by one bright row."""
    labels = torch.arange(420) % 3
    pixels = torch.randint(120, (420, 1, side, side), generator=torch.Generator().manual_seed(0))
    pixels[torch.arange(420), 0, labels] += 60
    return Images(pixels.to(torch.uint8), labels)


class Clean(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images / 255 - 0.5


class Net(nn.Module):
    """With what fine-tuning must not lose: statistics of a batch, and chance."""

    def __init__(self, side: int = 4) -> None:
        super().__init__()
        self.norm, self.drop, self.layer = nn.BatchNorm2d(1), nn.Dropout(0.1), nn.Linear(side * side, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.drop(self.norm(images)).flatten(1)).relu()


def network() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def evaluator(tuning: FineTuning = TUNING, given: Images | None = None) -> Evaluator:
    given = given or images()

    def loader(index: Tensor, batch_size: int = 50) -> BatchLoader:
        return BatchLoader(
            given,
            index,
            lambda epoch: torch.arange(len(index)),
            batch_size=batch_size,
            rank=0,
            world=1,
            seed=0,
            drop_last=False,
        )

    parts = {"bank": TRAIN, "probe": TRAIN, "validation": VALIDATION, "test": TEST}
    return Evaluator(
        clean=Clean(),
        loaders={name: lambda index=index: loader(index) for name, index in parts.items()},
        protocols=protocols(["knn1", *NAMES], PROBE, tuning, refit=True),
        classes=3,
        memory=1 << 20,
        drawn=loader,
    )


def score(name: str, tuning: FineTuning = TUNING, given: Images | None = None, on: str = "test") -> Score:
    scored = evaluator(tuning, given)
    return scored.score(scored.features(network(), CPU), [name], on)[name]  # type: ignore[arg-type]


def by_hand(rate: float, draw: int, index: Tensor = TRAIN) -> nn.Module:
    """SGD as Nesterov's momentum is written, over plain parameters."""
    given, seeds = images(), torch.Generator().manual_seed(draw)
    order = torch.cat([index[torch.randperm(len(index), generator=seeds)] for _ in range(9 * 300 // len(index))])
    model, velocity = nn.Sequential(network(), nn.Linear(5, 3)), {}
    for parameter in model[1].parameters():
        nn.init.zeros_(parameter)
    torch.manual_seed(draw)
    nn.Linear(5, 3)  # whose weights were drawn before they were set to 0
    for step in range(TUNING.steps):
        rows = order[step * 16 : (step + 1) * 16]
        torch.rand(48, generator=seeds)  # shifts and flips, which images of four pixels do without
        loss = F.cross_entropy(model(given.images[rows] / 255 - 0.5), given.labels[rows])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            gradient = gradient + 0.01 * parameter.detach()
            velocity[parameter] = 0.9 * velocity.get(parameter, 0) + gradient
            falling = rate * (1 + math.cos(math.pi * step / TUNING.steps)) / 2
            parameter.data -= falling * (gradient + 0.9 * velocity[parameter])
    return model.eval()


def right(model: nn.Module, index: Tensor) -> float:
    given = images()
    with torch.no_grad():
        found = model(given.images[index] / 255 - 0.5).argmax(1)
    return 100 * float((found == given.labels[index]).double().mean())


def test_the_whole_network_is_trained_as_a_loop_by_hand_does() -> None:
    scored = evaluator()
    splits = scored.features(network(), CPU)
    assert splits.network is not None
    before = {name: value.clone() for name, value in splits.network.backbone.state_dict().items()}
    chance = torch.get_rng_state()
    found = TUNING.train(splits.network, splits.train, 3, 0.1, 7)
    assert torch.equal(torch.get_rng_state(), chance)
    wanted = by_hand(0.1, 7)
    for one, other in zip(found.state_dict().values(), wanted.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    for name, value in splits.network.backbone.state_dict().items():
        assert torch.equal(value, before[name])  # the network itself is left alone
    again = TUNING.train(splits.network, splits.train, 3, 0.1, 7).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in found.state_dict().items())
    norms = [module for module in found.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.shared for norm in norms)  # every rank trains on the same images
    other = TUNING.train(splits.network, splits.train, 3, 0.1, 8).state_dict()
    assert not torch.equal(other["head.weight"], again["head.weight"])


def test_statistics_that_rested_in_training_follow_in_fine_tuning() -> None:
    """As of a teacher whose BatchNorm statistics are another network's."""
    resting, found = network(), []
    resting.norm.momentum = 0.0
    for one in (network(), resting):
        splits = evaluator().features(one, CPU)
        assert splits.network is not None
        found.append(TUNING.train(splits.network, splits.train, 3, 0.1, 7).state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert resting.norm.momentum == 0.0


def test_the_rate_that_is_best_on_validation_counts_and_test_changes_no_choice() -> None:
    models = {rate: by_hand(rate, 0) for rate in TUNING.learning_rates}
    best = max(models, key=lambda rate: right(models[rate], VALIDATION))
    found, on_validation = score("finetune"), score("finetune", on="validation")
    assert found.percent == pytest.approx(right(models[best], TEST))
    assert found.notes == {
        "labels": 300,
        "learning_rate": best,
        "validation_percent": pytest.approx(right(models[best], VALIDATION)),
    }
    assert on_validation.percent == found.notes["validation_percent"]
    assert found.percent > 60  # by chance 33
    assert found.predictions is not None
    truth = images().labels[TEST]
    assert found.percent == pytest.approx(100 * float((found.predictions == truth).double().mean()))
    labels = images().labels.clone()
    labels[TEST] = (labels[TEST] + 1) % 3
    wrong = score("finetune", given=Images(images().images, labels))
    assert wrong.notes == found.notes
    assert torch.equal(wrong.predictions, found.predictions)


def test_a_share_of_the_labels_is_drawn_as_for_the_probe_and_scored_by_its_mean() -> None:
    scored = evaluator()
    splits = scored.features(network(), CPU)
    wanted = []
    for draw, rows in enumerate(balanced_draws(splits.train, 3, labels=30, draws=3, seed=0)):
        index = splits.train.index[rows].sort().values
        models = [by_hand(rate, draw, index) for rate in TUNING.learning_rates]
        wanted.append(right(max(models, key=lambda model: right(model, VALIDATION)), TEST))
    found = scored.score(splits, ["finetune_10percent"], "test")["finetune_10percent"]
    assert found.percent == pytest.approx(sum(wanted) / 3)
    assert found.notes == {
        "labels": 30,
        "draws": 3,
        "std": pytest.approx(float(torch.tensor(wanted).std(correction=0)), rel=1e-4),
    }
    assert found.predictions is None
    assert score("finetune_1percent").notes["labels"] == 3


def test_what_cannot_be_fine_tuned_states_why() -> None:
    scored = evaluator()
    pixels = scored.pixels(torch.device("cpu"))
    assert scored.score(pixels, ["finetune"], "test")["finetune"].notes == {
        "reason": "there is no network to fine-tune"
    }
    splits = scored.features(network(), CPU)
    few = Splits(
        splits.bank,
        splits.train.rows(torch.arange(9)),
        splits.validation,
        splits.test,
        classes=3,
        network=splits.network,
    )
    assert "10% of 9 labels cannot" in str(scored.score(few, [NAMES[2]], "test")[NAMES[2]].notes["reason"])
    nothing = replace(splits.validation, labels=torch.full_like(splits.validation.labels, -1))
    none = Splits(splits.bank, splits.train, nothing, splits.test, classes=3, network=splits.network)
    assert "no labelled images in validation" in str(
        scored.score(none, ["finetune"], "test")["finetune"].notes["reason"]
    )


def test_a_rate_that_diverges_is_right_by_chance_and_not_chosen() -> None:
    found = score("finetune", replace(TUNING, learning_rates=(0.1, 1e30)))
    assert found.notes["learning_rate"] == 0.1
    assert found.percent == score("finetune", replace(TUNING, learning_rates=(0.1,))).percent
    assert score("finetune", replace(TUNING, learning_rates=(1e30,))).percent == pytest.approx(100 / 3, abs=10)


def test_every_image_of_an_epoch_comes_once_in_an_order_of_its_own() -> None:
    index = torch.tensor([3, 5, 8, 13])
    found = in_epochs(index, 11, torch.Generator().manual_seed(0))
    epochs = [part.tolist() for part in found.split(4)]
    assert [sorted(epoch) for epoch in epochs[:2]] == [index.tolist()] * 2
    assert len(epochs[2]) == 3
    assert epochs[0] != epochs[1]


def test_images_are_moved_by_their_own_shift_and_then_mirrored() -> None:
    seeds = torch.Generator().manual_seed(0)
    x = torch.rand(60, 2, 16, 20, generator=seeds)
    shift, flip = replace(TUNING, flip=0.5).offsets(x, seeds)
    assert set(shift[:, 0].tolist()) == {-2, -1, 0, 1, 2} == set(shift[:, 1].tolist())
    assert 15 < int(flip.sum()) < 45
    for image, (down, right), mirrored, got in zip(x, shift.tolist(), flip, moved(x, shift, flip), strict=True):
        wanted = torch.zeros_like(image)
        for row in range(16):
            for column in range(20):
                if 0 <= row - down < 16 and 0 <= column - right < 20:
                    wanted[:, row, column] = image[:, row - down, column - right]
        assert torch.equal(got, wanted.flip(2) if mirrored else wanted)
    assert not replace(TUNING, flip=0.0).offsets(x, seeds)[1].any()
    assert replace(TUNING, flip=1.0).offsets(x, seeds)[1].all()


def test_random_weights_are_fine_tuned_once() -> None:
    trained = []

    class Counting(FineTuning):
        def train(self, *given: object) -> object:  # type: ignore[override]
            trained.append(given)
            return FineTuning.train(self, *given)  # type: ignore[arg-type]

    tuning = Counting((0.1,), steps=2, batch_size=16, momentum=0.9, weight_decay=0.0, flip=0.0)
    scored = evaluator(tuning)
    found = random_scores(network(), scored, scored.loaders["bank"](), CPU, ["finetune"])
    assert found["finetune"].notes["statistics"] == "untouched"
    assert len(trained) == 1


def test_several_protocols_of_one_network_train_it_once_for_validation_and_test() -> None:
    scored = evaluator()
    splits = scored.features(network(), CPU)
    tuned = [scored.score(splits, ["finetune"], on)["finetune"] for on in ("validation", "test")]  # type: ignore[arg-type]
    known = [value for value in splits._known.values() if not isinstance(value, Score)]
    assert len(known) == 1
    assert tuned[0].percent != tuned[1].percent


def test_two_shares_of_the_labels_fine_tune_networks_of_their_own() -> None:
    scored = evaluator()
    splits = scored.features(network(), CPU)
    found = [scored.score(splits, [name], "test")[name] for name in NAMES]
    alone = [score(name) for name in NAMES]
    assert [(one.percent, one.notes) for one in found] == [(one.percent, one.notes) for one in alone]
