"""Pictures in a folder of one's own: a subfolder per class, or no classes at all.

A picture's class is the path of its folder below the root (``cat``, ``birds/owl``), or the first ``depth`` folders of
it. One that lies in the root itself, or whose class has too few pictures to be divided, has none: it is pretrained on
but never evaluated with. What is passed over on the way is stated in `scan`.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ssl_bench.data.facts import require_root
from ssl_bench.data.readers.pictures import Listing
from ssl_bench.data.readers.scan import Found, scan
from ssl_bench.data.splits import SPLIT_SEED, hold_out
from ssl_bench.errors import UserError

TEST_FRACTION = 0.2  # where no test folder is given
# What folders of splits are called.
LEARNT = re.compile(r"train(ing)?([-_ ]?(set|data|images|pictures|\d+))?", re.IGNORECASE)
JUDGED = re.compile(
    r"(test(ing)?|val(id(ation)?)?|dev|eval(uation)?)([-_ ]?(set|data|images|pictures|\d+))?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Folder:
    """Where pictures lie, and how they are kept: the options of ``conf/dataset``, by their names there."""

    root: str | None
    test_root: str | None  # pictures of the same classes; None: a fifth of each class of ``root``
    stored: int  # side in pixels
    on_error: str  # stop or skip: leave out what cannot be read
    max_pixels: int  # of a picture
    memory: float | None = None  # GiB that they may take decoded; None: as many as there are
    depth: int | None = None  # folders of a picture's path that make its class; None: all
    min_images: int | None = None  # pictures of a class, which is none with fewer; None: as few as the splits need

    @property
    def skip(self) -> bool:
        """Leave out what cannot be read."""
        return self.on_error == "skip"


def listings(folder: Folder) -> tuple[list[str], dict[str, Listing]]:
    """The classes, sorted, and the pictures of ``train`` and ``test``; nothing is decoded.

    Raises:
        UserError: there is no folder or no picture, the folder lies above its splits or the test folder, ``min_images``
            is less than the splits need, or the test folder has another class.
    """
    require_root("folder", {"root": folder.root})
    assert folder.root is not None
    least = 2 if folder.test_root else 3  # one to learn from, one for validation, one for the test
    if folder.min_images is not None and folder.min_images < least:
        raise UserError(
            f"dataset.min_images={folder.min_images} is less than the splits need: choose {least} at least, or null."
        )
    root, fewest = Path(folder.root), folder.min_images or least
    if folder.test_root and Path(folder.test_root).resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"dataset.test_root={folder.test_root} is or lies in dataset.root={folder.root}, so that its pictures "
            "would be trained on: keep them apart."
        )
    found = scan(root)
    folders = [_folder(name, folder.depth) for name in found.names]
    named = [_class(name) for name in folders]
    refuse_splits(root, named)
    counts = Counter(named)
    del counts[""]
    small = {name for name, count in counts.items() if count < fewest}
    # In the order of the names on the disk, which is that of runs before spellings were joined.
    classes = [name for name in dict.fromkeys(map(_class, sorted({*folders}))) if name in counts and name not in small]
    train = _listing(root, found, named, classes)
    if small:
        train = replace(train, notes=(*train.notes, _too_small(root, counts, small, fewest)))
    if folder.test_root is None:
        rest, test = hold_out(train.labels, TEST_FRACTION, SPLIT_SEED)
        return classes, {"train": train.rows(rest), "test": train.rows(test)}
    return classes, {"train": train, "test": _test_listing(folder, Path(folder.test_root), classes, small)}


def restricted(root: Path, classes: Collection[str]) -> Listing:
    """The pictures of ``classes`` below ``root``; raises UserError if a class has none."""
    found = [name for wnid in classes if (root / wnid).is_dir() for name in scan(root / wnid, f"{wnid}/").names]
    return of_classes(root, found, classes)


def of_classes(
    root: Path, names: list[str], classes: Collection[str], content: Callable[[str], bytes] | None = None
) -> Listing:
    """The pictures ``<class>/…``, sorted; raises UserError if a class has none."""
    absent = sorted({*classes} - {name.partition("/")[0] for name in names})
    if absent:
        raise UserError(f"{root} has no pictures of {len(absent)} of the {len(classes)} classes, such as {absent[0]}.")
    number = {wnid: place for place, wnid in enumerate(sorted(classes))}
    names = sorted(names)
    return Listing(root, names, torch.tensor([number[name.partition("/")[0]] for name in names]), content)


def refuse_splits(root: Path, classes: Collection[str]) -> None:
    """UserError where folders called ``train`` and ``test``, or alike, would be classes or parts of their names."""
    splits = defaultdict[str, dict[str, set[str]]](dict)  # by the folder they are in: name, classes below
    for parts in (name.split("/") for name in {*classes}):
        for depth, part in enumerate(parts):
            if LEARNT.fullmatch(part) or JUDGED.fullmatch(part):
                splits["/".join(parts[:depth])].setdefault(part, set()).add("/".join(parts[depth + 1 :]))
    for above, below in sorted(splits.items()):
        learnt = sorted(filter(LEARNT.fullmatch, below))
        judged = sorted(filter(JUDGED.fullmatch, below), key=lambda name: (not name.lower().startswith("test"), name))
        if not (learnt and judged):
            continue
        place, wanted = root / above, below[learnt[0]]
        alike = [name for name in judged if below[name] & wanted - {""}]  # they can be the test images
        settings = [f"dataset.root={place / learnt[0]}", *(f"dataset.test_root={place / name}" for name in alike[:1])]
        upper = f", or dataset.depth={above.count('/') + 1} where the folder above is the class"
        raise UserError(
            f"{place} holds {learnt[0]} and {[*alike, *judged][0]}, which are splits and no classes by their names: "
            f"set {shlex.join(settings)}{upper if above and wanted == {''} else ''}, or rename one of them."
        )


def _test_listing(folder: Folder, root: Path, classes: list[str], small: Collection[str]) -> Listing:
    """The pictures of the test folder; of classes that are too small in the other none is judged."""
    found = scan(root)
    named = [_class(_folder(name, folder.depth)) for name in found.names]
    refuse_splits(root, named)
    unknown = sorted({*named} - {*classes} - {*small})
    if unknown:
        place = f"the class {unknown[0]!r}" if unknown[0] else "pictures without a class"
        raise UserError(f"{root} has {place}, which {folder.root} has not: name the classes alike.")
    listing = _listing(root, found, named, classes)
    return listing.rows((listing.labels >= 0).nonzero()[:, 0])


def _too_small(root: Path, counts: Mapping[str, int], small: Collection[str], fewest: int) -> str:
    images = sum(counts[name] for name in small)
    return (
        f"{images} picture(s) of {len(small)} class(es) of {root} with fewer than {fewest}, such as {min(small)!r}, "
        "have no label: they are pretrained on and never scored (dataset.min_images, dataset.depth)."
    )


def _listing(root: Path, found: Found, named: list[str], classes: list[str]) -> Listing:
    number = {name: place for place, name in enumerate(classes)}
    labels = torch.tensor([number.get(name, -1) for name in named])
    return Listing(root, found.names, labels, notes=tuple(found.notes(root)))


def _folder(name: str, depth: int | None) -> str:
    """The part of a picture's name that gives its class."""
    return "/".join(name.split("/")[:-1][:depth])


def _class(folder: str) -> str:
    """The class with accents joined to their letters: systems differ in how they write them."""
    return unicodedata.normalize("NFC", folder)
