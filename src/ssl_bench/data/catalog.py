"""What each dataset is, and how to get it: one entry per dataset."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from ssl_bench.config import schema
from ssl_bench.data import packed
from ssl_bench.data.facts import FACTS, Facts, is_published
from ssl_bench.data.images import Images
from ssl_bench.data.readers import cifar, digits, fashion_mnist, imagenet100, stl10, tiny_imagenet
from ssl_bench.data.readers.folder import Folder, listings
from ssl_bench.data.readers.pictures import Listing
from ssl_bench.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Dataset(Facts):
    """What is known of a dataset before a picture is decoded."""

    read: Callable[[Path], dict[str, Images]]  # data_dir → "train" and "test"
    notes: tuple[str, ...] = ()  # warnings for a user before a run, in sentences
    pretraining_from: int | None = None  # images of train before this one serve bank, probe and validation only
    pictures: Callable[[Path], dict[str, Listing]] | None = None  # the same, not decoded; None: not in picture files
    folder: Folder | None = None  # where the pictures lie, and how they are kept

    @property
    def of_own_pictures(self) -> bool:
        """A user's own folder of pictures, of which nothing is known before it is listed."""
        return self.folder is not None and not is_published(self.name)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the classes in the order of their numbers; the numbers where they have no names."""
        return self.names or tuple(map(str, range(self.classes)))


def _nowhere(data_dir: Path) -> dict[str, Images]:
    raise UserError("This dataset has no place of its own: set dataset.root=<folder>.")


READERS: dict[str, Callable[[Path], dict[str, Images]]] = {
    "digits": digits.read,
    "fashion_mnist": fashion_mnist.read,
    "cifar10": cifar.read10,
    "cifar100": cifar.read100,
    "stl10": partial(stl10.read, unlabelled=True, fold=None),
    "tiny_imagenet": tiny_imagenet.read,
}
DATASETS = {name: Dataset(**vars(facts), read=READERS.get(name, _nowhere)) for name, facts in FACTS.items()}


def chosen(config: schema.Dataset) -> Dataset:
    """The entry that the options of ``conf/dataset`` choose; a folder is listed now.

    A dataset of a user's own has the key ``target``, a `Dataset` or what makes one of the options; or it builds on
    ``folder``.

    Raises:
        UserError: as `find`; or what ``target`` names is no dataset.
    """
    if "target" in config.options:
        return _own(config)
    if "fold" in config.options:
        return stl10_with(config.options["split"], config.options["fold"])
    return find(config.name, _folder(config))


def _own(config: schema.Dataset) -> Dataset:
    """The dataset that ``target`` names, under the name that its file gives."""
    target = config.options["target"]
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"dataset={config.name}: {target} cannot be imported ({error}).") from None
    entry = found if isinstance(found, Dataset) else found(config.as_dict())
    if not isinstance(entry, Dataset):
        raise UserError(f"dataset={config.name}: {target} gives no ssl_bench.data.catalog.Dataset.")
    return replace(entry, name=config.name)


def _folder(config: schema.Dataset) -> Folder | None:
    """Where the pictures lie and how they are kept; None for datasets that do not come as single pictures."""
    if "stored" not in config.options:
        return None
    kept: dict[str, Any] = {field.name: config.options.get(field.name) for field in fields(Folder)}
    return Folder(**kept)


def find(name: str, folder: Folder | None = None) -> Dataset:
    """The entry called ``name``; ``folder``: where the pictures lie and how they are kept, where one may choose.

    Raises:
        UserError: there is none; or the folder has no pictures.
    """
    if name not in DATASETS and folder is None:
        raise UserError(f"There is no dataset {name!r}: choose one of {', '.join(DATASETS)}.")
    entry = replace(DATASETS.get(name, DATASETS["folder"]), name=name)
    if folder is None:
        return entry
    entry = replace(entry, folder=folder, height=folder.stored, width=folder.stored)
    if name == "imagenet100":
        return replace(
            entry,
            names=tuple(imagenet100.class_list()),
            read=partial(imagenet100.read, folder),
            pictures=partial(imagenet100.listings, folder),
        )
    classes, found = listings(folder)
    notes = [note for split in found.values() for note in split.notes]
    if len(classes) == 1:
        one = (
            f"All labelled pictures of {folder.root} are of one class, {classes[0]!r}, so that accuracies mean nothing."
        )
        notes.insert(0, one)
    return replace(
        entry,
        notes=tuple(dict.fromkeys(notes)),
        classes=len(classes),
        names=tuple(classes),
        train=len(found["train"].names),
        test=len(found["test"].names),
        read=partial(packed.read, name, found, folder),
        pictures=lambda data_dir: found,
    )


def stl10_with(split: str, fold: int | None) -> Dataset:
    """STL-10 pretrained on ``train+unlabeled``, ``unlabeled`` or ``train``, with the labels of a fold or all."""
    labelled = stl10.COUNTS["train"]
    unlabelled = split != "train"
    return replace(
        DATASETS["stl10"],
        train=labelled + (stl10.COUNTS["unlabeled"] if unlabelled else 0),
        pretraining_from=labelled if split == "unlabeled" else None,
        read=partial(stl10.read, unlabelled=unlabelled, fold=fold),
    )


def load(dataset: Dataset | str, data_dir: str | Path) -> dict[str, Images]:
    """The official splits ``train`` and ``test`` of a dataset or of the entry called so, in memory or from a pack.

    Raises:
        UserError: the name is unknown, the files are missing or damaged, or are not those of this dataset.
    """
    dataset = find(dataset) if isinstance(dataset, str) else dataset
    splits = dataset.read(Path(data_dir))
    for split, size in (("train", dataset.train), ("test", dataset.test)):
        expected = (size - len(splits[split].skipped), dataset.channels, dataset.height, dataset.width)
        found = tuple(splits[split].images.shape)
        if found != expected:
            raise UserError(
                f"The {split} split of {dataset.name} found for data_dir={data_dir} is not the official one: expected "
                f"images × channels × height × width = {_times(expected)}, found {_times(found)}; replace its files."
            )
    return splits


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
