from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from ssl_bench.errors import UserError
from ssl_bench.evaluation import knn
from ssl_bench.evaluation.draws import balanced_draws
from ssl_bench.evaluation.features import Features, Splits
from ssl_bench.evaluation.finetune import FineTuning
from ssl_bench.evaluation.linear import LinearProbe
from ssl_bench.evaluation.protocols import protocols, with_top5

NAMES = ["knn1", "knn200", "knn1_100labels", "linear"]
TUNING = FineTuning((0.1,), steps=1, batch_size=2, momentum=0.9, weight_decay=0.0, flip=0.0)
PROBE = LinearProbe((0.01, 0.1), epochs=10, batch_size=128, momentum=0.9, weight_decay=0.0, seed=0)
BUDGET = 1 << 24


def digits() -> Splits:
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, labels = torch.tensor(data.data, dtype=torch.float32)[order], torch.tensor(data.target)[order]
    train, validation, test = (
        Features(x[rows], labels[rows], order[rows]) for rows in torch.arange(len(x)).split([1000, 300, 497])
    )
    return Splits(bank=train, train=train, validation=validation, test=test, classes=10)


def changed(splits: Splits, **parts: Features) -> Splits:
    whole = {name: getattr(splits, name) for name in ("bank", "train", "validation", "test")}
    return Splits(**(whole | parts), classes=splits.classes)


def random_features(n: int, classes: int) -> Features:
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    return Features(x, torch.arange(n) % classes, torch.arange(n))


def test_registry_keeps_names_order_and_versions() -> None:
    chosen = protocols(["linear", "knn1"], PROBE, TUNING, refit=True)
    assert [(protocol.name, protocol.version) for protocol in chosen] == [("linear", 2), ("knn1", 1)]
    assert [protocol.name for protocol in protocols(NAMES, PROBE, TUNING, refit=True)] == NAMES


def test_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'knn20'.*knn1, knn200, knn1_100labels, linear"):
        protocols(["knn20"], PROBE, TUNING, refit=True)


@pytest.mark.parametrize("name", ["knn1", "knn200", "linear"])
@pytest.mark.parametrize("on", ["validation", "test"])
def test_percent_is_that_of_the_predictions_on_the_split(name: str, on: str) -> None:
    splits = digits()
    (protocol,) = protocols([name], PROBE, TUNING, refit=True)
    score = protocol.evaluate(splits, on, BUDGET)
    truth = getattr(splits, on).labels
    assert score.predictions is not None
    assert score.percent == pytest.approx(100 * float((score.predictions == truth).double().mean()))
    assert score.percent > 85
    again = protocol.evaluate(splits, on, BUDGET // 100)
    assert torch.equal(score.predictions, again.predictions)


def test_knn1_on_its_own_bank_is_perfect() -> None:
    splits = digits()
    (protocol,) = protocols(["knn1"], PROBE, TUNING, refit=True)
    assert protocol.evaluate(changed(splits, test=splits.bank), "test", BUDGET).percent == 100


def test_knn200_uses_a_smaller_bank_whole_and_notes_it() -> None:
    splits = digits()
    (protocol,) = protocols(["knn200"], PROBE, TUNING, refit=True)
    assert protocol.evaluate(splits, "test", BUDGET).notes == {"k": 200, "bank": 1000}
    small = changed(splits, bank=splits.bank.rows(torch.arange(60)))
    score = protocol.evaluate(small, "test", BUDGET)
    assert score.notes == {"k": 60, "bank": 60}
    expected = knn.predict(
        small.bank.x, small.bank.labels, small.test.x, k=60, temperature=0.1, classes=10, budget=BUDGET
    )
    assert torch.equal(score.predictions, expected)


def test_few_labels_is_the_mean_over_ten_draws() -> None:
    splits = digits()
    (protocol,) = protocols(["knn1_100labels"], PROBE, TUNING, refit=True)
    score = protocol.evaluate(splits, "test", BUDGET)
    percents = []
    for rows in balanced_draws(splits.bank, 10, labels=100, draws=10, seed=0):
        x = torch.nn.functional.normalize(splits.bank.x[rows])
        nearest = (torch.nn.functional.normalize(splits.test.x) @ x.T).argmax(1)
        percents.append(100 * float((splits.bank.labels[rows][nearest] == splits.test.labels).double().mean()))
    assert score.percent == pytest.approx(sum(percents) / 10)
    assert score.notes["std"] == pytest.approx(float(torch.tensor(percents).std(correction=0)), rel=1e-4)
    assert score.predictions is None


@pytest.mark.parametrize(("classes", "counts"), [(10, {10}), (3, {33, 34}), (100, {1})])
def test_draws_hold_every_class_alike_and_differ(classes: int, counts: set[int]) -> None:
    bank = random_features(1000, classes)
    draws = balanced_draws(bank, classes, labels=100, draws=10, seed=0)
    assert len({tuple(sorted(rows.tolist())) for rows in draws}) == 10
    for rows in draws:
        assert len(set(rows.tolist())) == 100
        assert set(bank.labels[rows].bincount(minlength=classes).tolist()) == counts


def test_draws_are_the_same_images_for_every_order_of_the_bank_and_every_run() -> None:
    bank = random_features(300, 10)
    shuffled = bank.rows(torch.randperm(300, generator=torch.Generator().manual_seed(5)))
    torch.manual_seed(1)
    one = balanced_draws(bank, 10, labels=100, draws=10, seed=0)
    torch.manual_seed(2)
    two = balanced_draws(shuffled, 10, labels=100, draws=10, seed=0)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(bank.index[a], shuffled.index[b])
    # Fixed for good: other draws would be another version of the protocol.
    assert one[0][:5].tolist() == [30, 90, 160, 10, 250]


@pytest.mark.parametrize(
    ("images", "classes", "reason"),
    [(1000, 101, "101 classes"), (95, 10, "wants 10 images of every class"), (0, 10, "no labelled images in bank")],
)
def test_few_labels_is_unavailable_with_a_reason(images: int, classes: int, reason: str) -> None:
    bank, test = random_features(images, classes), random_features(20, classes)
    (protocol,) = protocols(["knn1_100labels"], PROBE, TUNING, refit=True)
    score = protocol.evaluate(Splits(bank, bank, test, test, classes=classes), "test", BUDGET)
    assert score.percent is None
    assert score.predictions is None
    assert reason in str(score.notes["reason"])


@pytest.mark.parametrize("name", NAMES)
def test_unlabelled_test_split_is_unavailable_not_zero(name: str) -> None:
    splits = digits()
    unlabelled = replace(splits.test, labels=torch.full_like(splits.test.labels, -1))
    (protocol,) = protocols([name], PROBE, TUNING, refit=True)
    score = protocol.evaluate(changed(splits, test=unlabelled), "test", BUDGET)
    assert score.percent is None
    assert score.notes == {"reason": "there are no labelled images in test"}


@pytest.mark.parametrize("name", NAMES)
def test_unlabelled_rows_change_no_score(name: str) -> None:
    splits = digits()
    (protocol,) = protocols([name], PROBE, TUNING, refit=True)

    def diluted(features: Features) -> Features:
        return features.joined(replace(features, labels=torch.full_like(features.labels, -1)))

    mixed = Splits(*(diluted(getattr(splits, part)) for part in ("bank", "train", "validation", "test")), classes=10)
    assert protocol.evaluate(mixed, "test", BUDGET).percent == protocol.evaluate(splits, "test", BUDGET).percent


def test_linear_reports_validation_without_refit_and_test_after_it() -> None:
    splits = digits()
    (protocol,) = protocols(["linear"], PROBE, TUNING, refit=True)
    on_validation, on_test = (protocol.evaluate(splits, on, BUDGET) for on in ("validation", "test"))
    kept = PROBE.fit(splits.train, splits.validation, 10)
    assert on_validation.percent == on_validation.notes["validation_percent"] == kept.validation_percent
    refitted = PROBE.refit(kept, splits.train, splits.validation, 10)
    assert torch.equal(on_test.predictions, refitted.predict(splits.test.x))
    chosen = {"learning_rate": kept.learning_rate, "validation_percent": kept.validation_percent}
    assert on_validation.notes == {**chosen, "trained_on": 1000}
    assert on_test.notes == {**chosen, "trained_on": 1300}


def test_linear_fits_its_learning_rates_once_for_validation_and_test(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[int] = []
    train = LinearProbe._train

    def counting(self: LinearProbe, features: Features, rates: tuple[float, ...], classes: int) -> object:
        fits.append(len(rates))
        return train(self, features, rates, classes)

    monkeypatch.setattr(LinearProbe, "_train", counting)
    splits = digits()
    (protocol,) = protocols(["linear"], PROBE, TUNING, refit=True)
    for on in ("validation", "test"):
        protocol.evaluate(splits, on, BUDGET)
    assert fits == [len(PROBE.learning_rates), 1]


def test_a_label_budget_keeps_the_probe_that_never_saw_validation_labels() -> None:
    # Every validation image contradicts the training images: refitted on both, the probe would waver.
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    train = Features(x.repeat(20, 1), torch.arange(40) % 2, torch.arange(40))
    contrary = Features(x.flip(0).repeat(60, 1), torch.arange(120) % 2, torch.arange(120))
    splits = Splits(bank=train, train=train, validation=contrary, test=train, classes=2)
    (kept,) = protocols(["linear"], PROBE, TUNING, refit=False)
    (refitted,) = protocols(["linear"], PROBE, TUNING, refit=True)
    score = kept.evaluate(splits, "test", 1 << 20)
    assert (score.percent, score.notes["trained_on"]) == (100, 40)
    score = refitted.evaluate(splits, "test", 1 << 20)
    assert (score.percent, score.notes["trained_on"]) == (0, 160)


@pytest.mark.parametrize("name", ["knn1", "knn200", "knn1_100labels"])
def test_validation_images_in_the_bank_are_not_their_own_neighbours(name: str) -> None:
    everything = random_features(600, classes=5)
    rest, validation = everything.rows(torch.arange(400)), everything.rows(torch.arange(400, 600))
    (protocol,) = protocols([name], PROBE, TUNING, refit=True)
    with_them = Splits(bank=everything, train=rest, validation=validation, test=validation, classes=5)
    without = Splits(bank=rest, train=rest, validation=validation, test=validation, classes=5)
    score = protocol.evaluate(with_them, "validation", 1 << 20).percent
    assert score == protocol.evaluate(without, "validation", 1 << 20).percent
    assert score is not None
    assert score < 50  # labels have nothing to do with these features


@pytest.mark.parametrize("name", NAMES)
def test_shuffled_labels_score_chance(name: str) -> None:
    splits = digits()
    generator = torch.Generator().manual_seed(1)

    def shuffled(features: Features) -> Features:
        return replace(features, labels=features.labels[torch.randperm(len(features), generator=generator)])

    mixed = Splits(
        bank=shuffled(splits.bank),
        train=shuffled(splits.train),
        validation=shuffled(splits.validation),
        test=shuffled(splits.test),
        classes=10,
    )
    (protocol,) = protocols([name], PROBE, TUNING, refit=True)
    score = protocol.evaluate(mixed, "test", BUDGET)
    assert score.percent is not None
    # 497 images of ten classes: chance is 10 %, with a standard deviation of 1.3 points.
    assert abs(score.percent - 10) < 5


def test_knn_takes_the_k_that_is_best_on_validation_images() -> None:
    splits = digits()
    (chosen,) = protocols(["knn"], PROBE, TUNING, refit=True)
    by_k = {}
    for k in (1, 5, 10, 20, 50, 100, 200):
        bank, percents = splits.bank, []
        for queries in (splits.validation, splits.test):
            found = knn.predict(bank.x, bank.labels, queries.x, k=k, temperature=0.1, classes=10, budget=BUDGET)
            percents.append(100 * float((found == queries.labels).double().mean()))
        by_k[k] = percents
    best = max(by_k, key=lambda k: by_k[k][0])
    score = chosen.evaluate(splits, "test", BUDGET)
    assert score.notes["k"] == best
    assert score.percent == pytest.approx(by_k[best][1])
    assert score.notes["validation_percent"] == pytest.approx(by_k[best][0])
    assert chosen.evaluate(splits, "validation", BUDGET).percent == pytest.approx(by_k[best][0])
    # what is known of test changes no choice
    wrong = changed(splits, test=replace(splits.test, labels=(splits.test.labels + 1) % 10))
    assert chosen.evaluate(wrong, "test", BUDGET).notes["k"] == best


@pytest.mark.parametrize(("wrong", "best"), [((), 1), ((1, 5), 10), ((1, 5, 10, 20, 50, 100), 200)])
def test_knn_takes_the_smallest_k_among_equals(
    wrong: tuple[int, ...], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = digits()
    truth = {id(part.x): part.labels for part in (splits.validation, splits.test)}

    def predicted(bank: Tensor, labels: Tensor, queries: Tensor, *, ks: list[int], **_: object) -> dict[int, Tensor]:
        return {k: (truth[id(queries)] + (k in wrong)) % 10 for k in ks}

    monkeypatch.setattr(knn, "predict_by_k", predicted)
    (chosen,) = protocols(["knn"], PROBE, TUNING, refit=True)
    for on in ("validation", "test"):
        assert chosen.evaluate(splits, on, BUDGET).notes["k"] == best


def test_top5_counts_what_is_among_the_five_most_likely_classes_of_the_linear_probe() -> None:
    x = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    labels = x[:, :4].abs().mul(3).long().clamp_max(1) @ torch.tensor([1, 2, 4, 8])  # 16 classes
    rows = torch.arange(600)
    train, validation, test = (Features(x[r], labels[r], r) for r in rows.split(200))
    splits = Splits(bank=train, train=train, validation=validation, test=test, classes=16)
    linear, top5 = protocols(["linear", "linear_top5"], PROBE, TUNING, refit=False)
    found, five = linear.evaluate(splits, "test", BUDGET), top5.evaluate(splits, "test", BUDGET)
    scores = PROBE.fit(train, validation, 16).classifier.scores(test.x)
    rank = (scores > scores.gather(1, test.labels[:, None])).sum(1)  # classes that seem more likely than the right one
    assert five.percent == pytest.approx(100 * float((rank < 5).double().mean()))
    assert (five.percent or 0) > (found.percent or 0)
    few = top5.evaluate(digits(), "test", BUDGET)
    assert few.percent is None
    assert "among 10 classes" in str(few.notes["reason"])


@pytest.mark.parametrize(
    ("names", "classes", "found"),
    [
        (["knn1", "linear", "knn"], 11, ["knn1", "linear", "linear_top5", "knn"]),
        (["knn1", "linear"], 10, ["knn1", "linear"]),
        (["linear_top5", "linear"], 100, ["linear_top5", "linear"]),
        (["knn1"], 100, ["knn1"]),
    ],
)
def test_top5_stands_beside_linear_where_there_are_more_than_ten_classes(
    names: list[str], classes: int, found: list[str]
) -> None:
    assert with_top5(names, classes) == found


@pytest.mark.parametrize(("name", "labels"), [("linear_1percent", 10), ("linear_10percent", 100)])
def test_a_share_of_the_labels_trains_the_probe_and_is_the_same_for_every_run(name: str, labels: int) -> None:
    splits = digits()
    (protocol,) = protocols([name], PROBE, TUNING, refit=True)
    score = protocol.evaluate(splits, "test", BUDGET)
    wanted = []
    for rows in balanced_draws(splits.train, 10, labels=labels, draws=3, seed=0):
        assert splits.train.labels[rows].bincount(minlength=10).tolist() == [labels // 10] * 10
        fitted = PROBE.fit(splits.train.rows(rows), splits.validation, 10)
        wanted.append(100 * float((fitted.predict(splits.test.x) == splits.test.labels).double().mean()))
    assert score.percent == pytest.approx(sum(wanted) / 3)
    assert (score.notes["labels"], score.notes["draws"]) == (labels, 3)
    other = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(5))
    shuffled = changed(splits, train=splits.train.rows(other))
    assert protocol.evaluate(shuffled, "test", BUDGET).percent == pytest.approx(score.percent, abs=3)
    short = changed(splits, train=splits.train.rows(torch.arange(60)))
    assert protocol.evaluate(short, "test", BUDGET).percent is None


def test_two_shares_of_the_labels_train_probes_of_their_own() -> None:
    few, more = protocols(["linear_1percent", "linear_10percent"], PROBE, TUNING, refit=True)
    splits = digits()
    few.evaluate(splits, "test", BUDGET)
    assert more.evaluate(splits, "test", BUDGET) == more.evaluate(digits(), "test", BUDGET)
