from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ssl_bench.data.splits import Parts, hold_out, parts, subset
from ssl_bench.errors import UserError

CLASSES = 7


def random_labels(size: int = 500, unlabelled: bool = False, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1 if unlabelled else 0, CLASSES, (size,), generator=generator)


def counts(labels: Tensor) -> Counter[int]:
    return Counter(labels.tolist())


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("unlabelled", [False, True])
def test_hold_out_divides_every_class_and_loses_no_image(fraction: float, unlabelled: bool) -> None:
    labels = random_labels(unlabelled=unlabelled)
    rest, held_out = hold_out(labels, fraction, seed=1)
    assert sorted(rest.tolist() + held_out.tolist()) == list(range(len(labels)))
    sizes = counts(labels)
    sizes.pop(-1, None)
    assert counts(labels[held_out]) == {label: round(fraction * size) for label, size in sizes.items()}


def test_hold_out_takes_a_random_sample_not_the_first_of_each_class() -> None:
    labels = torch.arange(CLASSES).repeat_interleave(1000)
    _, held_out = hold_out(labels, 0.1, seed=0)
    position = held_out % 1000
    assert abs(position.double().mean() - 499.5) < 5 * 1000 / (12 * 700) ** 0.5
    assert len(set(position.tolist())) > 400  # and not the same positions in every class


def test_cuts_depend_on_their_seed_alone() -> None:
    labels = random_labels()
    before = hold_out(labels, 0.1, seed=0)[1], subset(labels, 50, seed=0)
    torch.manual_seed(99)
    torch.rand(3)
    assert torch.equal(hold_out(labels, 0.1, seed=0)[1], before[0])
    assert torch.equal(subset(labels, 50, seed=0), before[1])
    assert not torch.equal(hold_out(labels, 0.1, seed=1)[1], before[0])
    assert not torch.equal(subset(labels, 50, seed=1), before[1])


def test_cuts_are_those_of_every_other_machine() -> None:
    """Pinned: a random stream that differed between versions of PyTorch would move the benchmark's splits."""
    labels = torch.arange(1000) % 10
    assert hold_out(labels, 0.1, seed=0)[1][:8].tolist() == [7, 12, 17, 49, 59, 63, 65, 85]
    assert subset(labels, 20, seed=0)[:8].tolist() == [17, 49, 85, 188, 221, 255, 282, 450]


def test_hold_out_leaves_a_class_of_one_image_where_it_is() -> None:
    rest, held = hold_out(torch.tensor([0, 0, 0, 3, 2, 2]), 0.9, seed=0)
    assert 3 in rest
    assert len(rest) == 3  # and one of each other class
    assert sorted([*rest.tolist(), *held.tolist()]) == list(range(6))


@pytest.mark.parametrize("count", [7, 8, 50, 200, 499, 500])
def test_subset_is_balanced_as_far_as_the_classes_reach(count: int) -> None:
    labels = random_labels()
    chosen = subset(labels, count, seed=2)
    assert len(set(chosen.tolist())) == len(chosen) == count
    assert chosen.tolist() == sorted(chosen.tolist())
    taken, sizes = counts(labels[chosen]), counts(labels)
    most = max(taken.values())
    assert all(taken[label] >= min(most - 1, sizes[label]) for label in sizes)


def test_smaller_subsets_lie_within_larger_ones() -> None:
    labels = random_labels(unlabelled=True)
    choices = [set(subset(labels, count, seed=2).tolist()) for count in range(CLASSES, 400, 13)]
    assert all(small < large for small, large in pairwise(choices))


def test_subset_never_takes_an_image_without_a_label() -> None:
    labels = random_labels(unlabelled=True)
    labelled = int((labels >= 0).sum())
    assert labelled < len(labels)
    assert (labels[subset(labels, labelled, seed=0)] >= 0).all()


@pytest.mark.parametrize("count", [0, 6, 501])
def test_subset_refuses_what_cannot_be_balanced_or_had(count: int) -> None:
    with pytest.raises(UserError, match=rf"^Cannot choose {count} .* 500 labelled ones of 7 classes: ask for 7 to 500"):
        subset(random_labels(), count, seed=0)


@pytest.mark.parametrize("hold_out_validation", [True, False])
@pytest.mark.parametrize("subset_size", [None, 300])
@pytest.mark.parametrize("label_count", [None, 70])
def test_parts_lie_within_one_another_as_the_rule_says(
    hold_out_validation: bool, subset_size: int | None, label_count: int | None
) -> None:
    labels = random_labels(2000, unlabelled=True)
    rule = parts(labels, subset_size=subset_size, label_count=label_count, hold_out_validation=hold_out_validation)
    everything = parts(labels, subset_size=None, label_count=None, hold_out_validation=True)
    pretraining, bank, probe, validation = (
        set(index.tolist()) for index in (rule.pretraining, rule.bank, rule.probe, rule.validation)
    )
    assert torch.equal(rule.validation, everything.validation)
    assert not probe & validation
    assert bool(pretraining & validation) != hold_out_validation
    assert bank <= pretraining
    assert probe <= pretraining
    assert (labels[torch.cat([rule.bank, rule.probe, rule.validation])] >= 0).all()
    if subset_size is not None:
        assert len(pretraining) == subset_size
    if label_count is not None:
        assert len(bank) == len(probe) == label_count
        assert set(counts(labels[rule.probe]).values()) == {label_count // CLASSES}
    if subset_size is label_count is None:
        assert pretraining | validation == set(range(2000))


def test_without_held_out_validation_all_of_train_is_pretrained_on() -> None:
    labels = random_labels()
    rule = parts(labels, subset_size=None, label_count=None, hold_out_validation=False)
    assert rule.pretraining.tolist() == rule.bank.tolist() == list(range(len(labels)))
    assert sorted(rule.probe.tolist() + rule.validation.tolist()) == list(range(len(labels)))


@pytest.mark.parametrize("first", [0, 5])
def test_a_subset_takes_unlabelled_images_once_it_has_all_labelled_ones(first: int) -> None:
    labels = torch.full((2000,), -1)
    labels[:300] = torch.arange(300) % CLASSES
    sizes = [50, 260, 270, 271, 900, 1970]

    def rule(size: int | None) -> Parts:
        return parts(labels, subset_size=size, label_count=None, hold_out_validation=True, pretraining_from=first)

    chosen = [set(rule(size).pretraining.tolist()) for size in sizes[: 6 if not first else 5]]
    assert [len(images) for images in chosen] == sizes[: len(chosen)]
    assert all(small < large for small, large in pairwise(chosen))
    labelled = [sum(row < 300 for row in images) for images in chosen]
    most = int((labels[rule(None).pretraining] >= 0).sum())
    assert labelled == [min(size, most) for size in sizes[: len(chosen)]]
    unlabelled = torch.tensor(sorted(chosen[4])).double()[most:]
    assert abs(unlabelled.mean() - 1150) < 5 * 1700 / (12 * 600) ** 0.5  # from everywhere
    everything = len(rule(None).pretraining)
    assert len(rule(everything).pretraining) == everything
    with pytest.raises(UserError, match=f"^subset={everything + 1}, but there are {everything} images"):
        rule(everything + 1)


def test_images_before_the_first_that_is_pretrained_on_serve_bank_probe_and_validation() -> None:
    labels = torch.full((1000,), -1)
    labels[:200] = torch.arange(200) % CLASSES
    for subset_size in (None, 100):
        rule = parts(labels, subset_size=subset_size, label_count=None, hold_out_validation=True, pretraining_from=200)
        assert int(rule.pretraining.min()) >= 200
        assert len(rule.pretraining) == (subset_size or 800)
        assert torch.equal(rule.bank, rule.probe)
        assert torch.equal(torch.cat([rule.bank, rule.validation]).sort().values, torch.arange(200))
