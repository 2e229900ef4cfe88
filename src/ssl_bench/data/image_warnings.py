"""What a user should know of the images before figures are believed; its counts stand in records."""

from collections.abc import Mapping
from dataclasses import dataclass

from ssl_bench.data.catalog import Dataset
from ssl_bench.data.images import Images, repeats

SHOWN = 5  # names of classes in a sentence


@dataclass(frozen=True, slots=True)
class ImageWarnings:
    """Sentences, and counts."""

    sentences: list[str]
    test_images_in_train: int
    contradictory_train_images: int


def image_warnings(dataset: Dataset, splits: Mapping[str, Images]) -> ImageWarnings:
    """What was left out or passed over, which classes are empty, which images are there twice."""
    sentences = []
    for split, images in splits.items():
        if images.skipped:
            sentences.append(
                f"{len(images.skipped)} broken picture(s) of {split} left out, such as {images.skipped[0]}."
            )
    sentences += dataset.notes
    for split, images in splits.items():
        counts = images.labels[images.labels >= 0].bincount(minlength=dataset.classes)
        empty = [dataset.class_names[number] for number in (counts == 0).nonzero()[:, 0].tolist()]
        if empty and counts.any():
            more = f" and {len(empty) - SHOWN:,} more" if len(empty) > SHOWN else ""
            sentences.append(f"{split} has no image of {', '.join(empty[:SHOWN])}{more}.")
    found = repeats(splits["train"], splits["test"])
    sentences += [f"{phrase}." for phrase in (found.of_test, found.of_train) if phrase]
    return ImageWarnings(sentences, found.test_in_train, found.contradictory)
