"""What a user is warned of before figures are believed."""

from __future__ import annotations

from dataclasses import replace

import torch

from ssl_bench.data import catalog
from ssl_bench.data.image_warnings import image_warnings
from ssl_bench.data.images import Images

ANIMALS = replace(catalog.find("digits"), classes=3, names=("cat", "dog", "owl"), notes=("a note.",))


def images(*levels: int, labels: list[int], skipped: tuple[str, ...] = ()) -> Images:
    return Images(torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1), torch.tensor(labels), skipped)


def test_there_is_no_warning_where_nothing_is_wrong() -> None:
    splits = {"train": images(1, 2, 3, labels=[0, 1, 2]), "test": images(4, 5, 6, labels=[0, 1, 2])}
    assert image_warnings(replace(ANIMALS, notes=()), splits).sentences == []


def test_all_that_makes_figures_doubtful_is_shown_and_counted() -> None:
    splits = {
        "train": images(1, 1, 3, 4, labels=[0, 2, 0, -1], skipped=("a.png", "b.png")),
        "test": images(1, 4, 9, labels=[0, 1, 2]),
    }
    found = image_warnings(ANIMALS, splits)
    assert found.sentences == [
        "2 broken picture(s) of train left out, such as a.png.",
        "a note.",
        "train has no image of dog.",
        "2 of 3 test images are in train as well, pixel for pixel, such as image 0 and image 0 of train.",
        "1 training image(s) repeat an earlier one under another class, such as image 0 and image 1.",
    ]
    assert (found.test_images_in_train, found.contradictory_train_images) == (2, 1)


def test_of_images_without_labels_no_class_is_missed() -> None:
    splits = {"train": images(1, 2, labels=[-1, -1]), "test": images(3, labels=[-1])}
    assert image_warnings(ANIMALS, splits).sentences == ["a note."]


def test_of_many_empty_classes_the_first_are_named() -> None:
    entry = catalog.find("cifar100")
    splits = {"train": images(1, labels=[0]), "test": images(2, labels=[0])}
    assert image_warnings(entry, splits).sentences[0].endswith("and 94 more.")
