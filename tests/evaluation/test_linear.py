from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.linear import FittedProbe, LinearProbe

PROBE = LinearProbe((0.01, 0.1, 1.0), epochs=20, batch_size=64, momentum=0.9, weight_decay=0.0, seed=0)


def digits(seed: int = 0) -> tuple[Features, Features, Features]:
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))
    x, labels = torch.tensor(data.data, dtype=torch.float32)[order], torch.tensor(data.target)[order]
    everything = Features(x, labels, order)
    return tuple(everything.rows(rows) for rows in torch.arange(len(x)).split([1000, 300, 497]))  # type: ignore[return-value]


def refitted(probe: LinearProbe, train: Features, validation: Features, classes: int) -> FittedProbe:
    return probe.refit(probe.fit(train, validation, classes), train, validation, classes)


def percent(predictions: torch.Tensor, features: Features) -> float:
    return 100 * float((predictions == features.labels).double().mean())


def test_probe_is_as_good_as_logistic_regression_on_digits() -> None:
    probe = replace(PROBE, learning_rates=(0.01, 0.03, 0.1, 0.3))
    differences = []
    for seed in range(3):  # one cut of 497 test images alone is uncertain by a point
        train, validation, test = digits(seed)
        both = train.joined(validation)
        reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        reference.fit(both.x.numpy(), both.labels.numpy())
        expected = 100 * reference.score(test.x.numpy(), test.labels.numpy())
        differences.append(percent(refitted(probe, train, validation, 10).predict(test.x), test) - expected)
    assert abs(sum(differences) / 3) < 1


@pytest.mark.parametrize(
    "remainders",
    [
        pytest.param((1, 2, 3, 255), id="few"),
        pytest.param((*range(4, 17), *range(17, 255, 17)), id="many", marks=pytest.mark.slow),  # few are the danger
    ],
)
def test_no_number_of_images_makes_the_probe_worse_than_logistic_regression(remainders: Iterable[int]) -> None:
    train, _, test = digits()
    probe = replace(PROBE, learning_rates=(0.03, 0.1, 0.3, 1.0), epochs=100, batch_size=256)
    for remainder in remainders:  # of all that the refit sees; the choice sees 60 images fewer
        both = train.rows(torch.arange(256 + remainder))
        few = refitted(probe, both.rows(torch.arange(196 + remainder)), both.rows(torch.arange(-60, 0)), 10)
        reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        expected = 100 * reference.fit(both.x.numpy(), both.labels.numpy()).score(test.x.numpy(), test.labels.numpy())
        assert percent(few.predict(test.x), test) > expected - 2.5, remainder


def test_an_image_that_is_left_over_makes_no_batch_of_its_own() -> None:
    train, *_ = digits()
    seen: list[int] = []
    original = torch.Tensor.softmax

    def counting(self: torch.Tensor, dim: int) -> torch.Tensor:
        seen.append(len(self))
        return original(self, dim)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.Tensor, "softmax", counting)
        for images in (64, 65, 129, 191):
            replace(PROBE, epochs=1)._train(train.rows(torch.arange(images)), (0.1,), 10)
    assert seen == [64, 33, 32, 43, 43, 43, 64, 64, 63]


def test_learning_rates_at_once_equal_torch_sgd_one_by_one() -> None:
    train, *_ = digits()
    train = train.rows(torch.arange(150))  # three batches of 50
    probe = replace(PROBE, epochs=3, weight_decay=0.01)
    got = probe._train(train, probe.learning_rates, 10)
    x = torch.from_numpy(StandardScaler().fit_transform(train.x.double().numpy())).float()
    for learning_rate, classifier in zip(probe.learning_rates, got, strict=True):
        layer = torch.nn.Linear(64, 10)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        optimiser = torch.optim.SGD(layer.parameters(), learning_rate, momentum=0.9, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3 * 3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            for rows in torch.randperm(150, generator=generator).split(50):
                optimiser.zero_grad()
                F.cross_entropy(layer(x[rows]), train.labels[rows]).backward()
                optimiser.step()
                schedule.step()
        assert torch.allclose(classifier.weight.T, layer.weight, atol=1e-4)
        assert torch.allclose(classifier.bias, layer.bias, atol=1e-4)


def test_learning_rate_is_chosen_on_validation_alone() -> None:
    train, validation, _ = digits()
    alone = {rate: replace(PROBE, learning_rates=(rate,)).fit(train, validation, 10) for rate in (1e-6, 0.1)}
    fitted = replace(PROBE, learning_rates=(1e-6, 0.1)).fit(train, validation, 10)
    scores = {rate: percent(one.predict(validation.x), validation) for rate, one in alone.items()}
    assert fitted.learning_rate == max(scores, key=lambda rate: scores[rate]) == 0.1
    assert fitted.validation_percent == scores[0.1]


def test_equal_learning_rates_give_the_first() -> None:
    train, *_ = digits()
    probe = replace(PROBE, learning_rates=(0.2, 0.1), epochs=1)
    assert probe.fit(train.rows(torch.arange(10)), train.rows(torch.arange(1)), 10).learning_rate == 0.2


def test_refit_trains_on_train_and_validation() -> None:
    train, validation, _ = digits()
    kept, again = PROBE.fit(train, validation, 10), refitted(PROBE, train, validation, 10)
    both = train.joined(validation)
    (expected,) = PROBE._train(both, (kept.learning_rate,), 10)
    assert torch.equal(again.classifier.weight, expected.weight)
    assert torch.equal(again.classifier.mean, both.x.mean(0))
    assert (again.learning_rate, again.validation_percent) == (kept.learning_rate, kept.validation_percent)
    assert (kept.images, again.images) == (1000, 1300)
    assert not torch.equal(again.classifier.weight, kept.classifier.weight)


def test_same_seed_gives_the_same_bits_whatever_the_global_generator() -> None:
    train, validation, _ = digits()
    torch.manual_seed(1)
    one = refitted(PROBE, train, validation, 10)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two = refitted(PROBE, train, validation, 10)
    assert torch.equal(one.classifier.weight, two.classifier.weight)
    assert torch.equal(torch.get_rng_state(), state)
    other = refitted(replace(PROBE, seed=1), train, validation, 10)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


def test_scale_shift_and_constant_features_do_not_matter() -> None:
    train, validation, test = digits()

    def disguise(features: Features) -> Features:
        x = features.x * torch.logspace(-4, 4, 64) + 3 * torch.logspace(-4, 4, 64)
        return replace(features, x=torch.cat([x, torch.full((len(x), 1), 1234.567), torch.zeros(len(x), 1)], dim=1))

    plain = refitted(PROBE, train, validation, 10).predict(test.x)
    disguised = refitted(PROBE, disguise(train), disguise(validation), 10).predict(disguise(test).x)
    assert (plain == disguised).double().mean() > 0.99


def test_rounding_noise_of_a_constant_feature_is_not_blown_up() -> None:
    train, *_ = digits()
    constant = torch.full((len(train), 1), 1234.567)
    leaking = torch.where(train.labels[:, None] == 0, constant.nextafter(constant + 1), constant)
    disguised = replace(train, x=torch.cat([train.x, leaking], dim=1))
    (classifier,) = PROBE._train(disguised, (0.1,), 10)
    assert classifier.scale[-1] == 1
    assert classifier.weight[-1].abs().max() < 1e-3 * classifier.weight.abs().max()


def test_thousand_classes_and_fewer_images_than_a_batch_are_learned() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 256, generator=generator)
    features = Features(x, torch.arange(1000), torch.arange(1000))
    probe = replace(PROBE, learning_rates=(10.0,), batch_size=4096, epochs=50)
    assert probe.fit(features, features, 1000).validation_percent > 99


def test_training_precision_does_not_reach_the_probe() -> None:
    train, validation, test = digits()
    with torch.autocast("cpu", torch.bfloat16):
        low = refitted(PROBE, train, validation, 10)
        predictions = low.predict(test.x)
    plain = refitted(PROBE, train, validation, 10)
    assert torch.equal(low.classifier.weight, plain.classifier.weight)
    assert torch.equal(predictions, plain.predict(test.x))


def test_unlabelled_images_are_refused() -> None:
    train, validation, _ = digits()
    unlabelled = replace(train, labels=train.labels - 1)
    with pytest.raises(ValueError, match="train labels"):
        refitted(PROBE, unlabelled, validation, 10)


def test_empty_validation_is_refused() -> None:
    train, validation, _ = digits()
    with pytest.raises(UserError, match="validation"):
        refitted(PROBE, train, validation.rows(torch.arange(0)), 10)
