"""What each dataset is, and how to get it: one entry per dataset."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ssl_bench.data import packed, sizes
from ssl_bench.data.class_names import class_names
from ssl_bench.data.images import Images
from ssl_bench.data.readers import cifar, digits, fashion_mnist, imagenet100, stl10, tiny_imagenet
from ssl_bench.data.readers.folder import Folder, listings
from ssl_bench.data.readers.pictures import Listing
from ssl_bench.errors import UserError


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is known of a dataset before a picture is decoded."""

    name: str
    classes: int
    train: int  # images of the official split
    test: int
    channels: int
    height: int  # pixels, native
    width: int
    mean: tuple[float, ...]  # per channel, over the train split in 0–1; ImageNet's where pictures come in all sizes
    std: tuple[float, ...]
    licence: str
    source: str  # who made it, and where it is described
    read: Callable[[Path], dict[str, Images]]  # data_dir → "train" and "test"
    notes: tuple[str, ...] = ()  # warnings for a user before a run, in sentences
    pretraining_from: int | None = None  # images of train before this one serve bank, probe and validation only
    pictures: Callable[[Path], dict[str, Listing]] | None = None  # the same, not decoded; None: not in picture files
    names: tuple[str, ...] = ()  # of the classes, where they have names

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the classes in the order of their numbers; the numbers where they have no names."""
        return self.names or tuple(map(str, range(self.classes)))


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as everyone has them


def _nowhere(data_dir: Path) -> dict[str, Images]:
    raise UserError("This dataset has no place of its own: set dataset.root=<folder>.")


# The channel means and deviations of digits and Fashion-MNIST were computed from the files. Those of CIFAR, STL-10 and
# Tiny-ImageNet are the published ones, as the field normalises with them; tests/data/test_catalog.py compares them with
# the files where these are.
CIFAR_SOURCE = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, University of Toronto, 2009."

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="digits",
            classes=digits.CLASSES,
            train=sizes.TRAIN["digits"],
            test=359,
            channels=1,
            height=8,
            width=8,
            mean=(0.3054,),
            std=(0.3758,),
            licence="CC BY 4.0",
            source=(
                "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning "
                "Repository, 1998: the 1,797 images of its test set, as shipped with scikit-learn."
            ),
            read=digits.read,
            names=class_names("digits"),
        ),
        Dataset(
            name="fashion_mnist",
            classes=fashion_mnist.CLASSES,
            train=sizes.TRAIN["fashion_mnist"],
            test=10_000,
            channels=1,
            height=28,
            width=28,
            mean=(0.2860,),
            std=(0.3530,),
            licence="MIT",
            source=(
                "H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking "
                "Machine Learning Algorithms, arXiv:1708.07747, 2017."
            ),
            read=fashion_mnist.read,
            names=class_names("fashion_mnist"),
        ),
        Dataset(
            name="cifar10",
            classes=cifar.CIFAR10.classes,
            train=sizes.TRAIN["cifar10"],
            test=10_000,
            channels=3,
            height=cifar.SIDE,
            width=cifar.SIDE,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            licence="none stated",
            source=CIFAR_SOURCE,
            read=cifar.read10,
            names=class_names("cifar10"),
        ),
        Dataset(
            name="cifar100",
            classes=cifar.CIFAR100.classes,
            train=sizes.TRAIN["cifar100"],
            test=10_000,
            channels=3,
            height=cifar.SIDE,
            width=cifar.SIDE,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            licence="none stated",
            source=CIFAR_SOURCE,
            read=cifar.read100,
            names=class_names("cifar100"),
        ),
        Dataset(
            name="stl10",
            classes=stl10.CLASSES,
            train=sizes.TRAIN["stl10"],
            test=stl10.COUNTS["test"],
            channels=3,
            height=stl10.SIDE,
            width=stl10.SIDE,
            mean=(0.4408, 0.4279, 0.3867),
            std=(0.2682, 0.2610, 0.2686),
            licence="none stated; pictures from ImageNet",
            source=(
                "A. Coates, H. Lee and A. Y. Ng, An Analysis of Single-Layer Networks in Unsupervised Feature "
                "Learning, AISTATS 2011."
            ),
            read=partial(stl10.read, unlabelled=True, fold=None),
            names=class_names("stl10"),
        ),
        Dataset(
            name="tiny_imagenet",
            classes=tiny_imagenet.CLASSES,
            train=sizes.TRAIN["tiny_imagenet"],
            test=10_000,
            channels=3,
            height=tiny_imagenet.SIDE,
            width=tiny_imagenet.SIDE,
            mean=(0.4802, 0.4481, 0.3975),
            std=(0.2770, 0.2691, 0.2821),
            licence="ImageNet's terms of access: research and teaching",
            source="Y. Le and X. Yang, Tiny ImageNet Visual Recognition Challenge, Stanford CS 231N, 2015.",
            read=tiny_imagenet.read,
        ),
        Dataset(
            name="imagenet100",
            classes=imagenet100.CLASSES,
            train=sizes.TRAIN["imagenet100"],
            test=5_000,
            channels=3,
            height=0,  # as stored
            width=0,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            licence="ImageNet's terms of access: research and teaching",
            source="Y. Tian, D. Krishnan and P. Isola, Contrastive Multiview Coding, ECCV 2020.",
            read=_nowhere,
        ),
        Dataset(
            name="folder",
            classes=0,  # these numbers are known when the folder is
            train=0,
            test=0,
            channels=3,
            height=0,
            width=0,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            licence="the user's",
            source="A folder of pictures.",
            read=_nowhere,
        ),
    )
}


def chosen(options: Mapping[str, Any]) -> Dataset:
    """The entry that the options of ``conf/dataset`` choose; a folder is listed now.

    A dataset of a user's own has the key ``target``, a `Dataset` or what makes one of the options; or it builds on
    ``folder``.

    Raises:
        UserError: as `find`; or what ``target`` names is no dataset.
    """
    if "target" in options:
        return _own(options)
    if "fold" in options:
        return stl10_with(options["split"], options["fold"])
    return find(options["name"], chosen_folder(options))


def _own(options: Mapping[str, Any]) -> Dataset:
    """The dataset that ``target`` names, under the name that its file gives."""
    module, _, name = options["target"].rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"dataset={options['name']}: {options['target']} cannot be imported ({error}).") from None
    entry = found if isinstance(found, Dataset) else found(options)
    if not isinstance(entry, Dataset):
        raise UserError(f"dataset={options['name']}: {options['target']} gives no ssl_bench.data.catalog.Dataset.")
    return replace(entry, name=options["name"])


def chosen_folder(options: Mapping[str, Any]) -> Folder | None:
    """Where the pictures lie and how they are kept; None for datasets that do not come as single pictures."""
    if "stored" not in options:
        return None
    return Folder(
        root=options["root"],
        test_root=options.get("test_root"),
        stored=options["stored"],
        skip=options["on_error"] == "skip",
        max_pixels=options["max_pixels"],
        memory=int(options["memory"] * 2**30),
        depth=options.get("depth"),
        min_images=options.get("min_images"),
    )


def find(name: str, folder: Folder | None = None) -> Dataset:
    """The entry called ``name``; ``folder``: where the pictures lie and how they are kept, where one may choose.

    Raises:
        UserError: there is none; or the folder has no pictures.
    """
    if name not in DATASETS and folder is None:
        raise UserError(f"There is no dataset {name!r}: choose one of {', '.join(DATASETS)}.")
    entry = DATASETS[name] if name in DATASETS else replace(DATASETS["folder"], name=name)
    if folder is None:
        return entry
    entry = replace(entry, height=folder.stored, width=folder.stored)
    if name == "imagenet100":
        return replace(
            entry,
            names=tuple(imagenet100.class_list()),
            read=partial(imagenet100.read, folder),
            pictures=partial(imagenet100.listings, folder),
        )
    classes, found = listings(folder)
    one = (
        [f"All labelled pictures of {folder.root} are of one class, {classes[0]!r}, so that accuracies mean nothing."]
        if len(classes) == 1
        else []
    )
    return replace(
        entry,
        notes=tuple(dict.fromkeys([*one, *(note for split in found.values() for note in split.notes)])),
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
