"""Pictures in a folder of one's own: a subfolder per class, or no classes at all.

A picture's class is the path of its folder below the root (``cat``, ``birds/owl``); one that lies in the root itself
has none, and is pretrained on but never evaluated with. Names that begin with a dot, and files that are no pictures by
their ending, are passed over.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ssl_bench.data.images import Images
from ssl_bench.data.readers.pictures import ENDINGS, decode_all
from ssl_bench.data.splits import SPLIT_SEED, hold_out
from ssl_bench.errors import UserError

TEST_FRACTION = 0.2  # where no test folder is given
SHOWN_ENDINGS = 5  # of files that are passed over


@dataclass(frozen=True, slots=True)
class Folder:
    """Where pictures lie, and how they are kept in memory."""

    root: str | None
    test_root: str | None  # pictures of the same classes; None: a fifth of each class of ``root``
    stored: int  # side in pixels
    skip: bool  # leave out what cannot be read
    max_pixels: int  # of a picture
    memory: int | None = None  # bytes that they may take decoded; None: as many as there are


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The pictures below a folder, sorted by name."""

    root: Path
    names: list[str]
    labels: Tensor  # int64 [M], -1 where there is no class
    content: Callable[[str], bytes] | None = None  # the bytes of a name; None: of the file below root
    notes: tuple[str, ...] = ()  # what a user should hear of the folder, in sentences

    def rows(self, index: Tensor) -> Listing:
        return replace(self, names=[self.names[row] for row in index.tolist()], labels=self.labels[index])

    def read(self, name: str) -> bytes:
        """The bytes of a picture, from any thread."""
        return self.content(name) if self.content else (self.root / name).read_bytes()


def listings(folder: Folder) -> tuple[list[str], dict[str, Listing]]:
    """The classes, sorted, and the pictures of ``train`` and ``test``; nothing is decoded.

    Raises:
        UserError: there is no folder or no picture, a class is too small, or the test folder has another class.
    """
    if folder.root is None:
        raise UserError("dataset=folder needs to know where the pictures are: set dataset.root=<folder>.")
    below = _look(Path(folder.root))
    classes = sorted({_class(name) for name in below.names} - {""})
    train = _listing(Path(folder.root), below, classes)
    fewest = 2 if folder.test_root else 3  # one to learn from, one for validation, one for the test
    for number, count in enumerate(train.labels[train.labels >= 0].bincount().tolist()):
        if count < fewest:
            raise UserError(
                f"The class {classes[number]!r} of {folder.root} has {count} picture(s), but each needs {fewest} at "
                "least: add pictures of it or remove it."
            )
    if folder.test_root is None:
        rest, test = hold_out(train.labels, TEST_FRACTION, SPLIT_SEED)
        return classes, {"train": train.rows(rest), "test": train.rows(test)}
    below = _look(Path(folder.test_root))
    unknown = sorted({_class(name) for name in below.names} - {*classes})
    if unknown:
        place = f"the class {unknown[0]!r}" if unknown[0] else "pictures without a class"
        raise UserError(f"{folder.test_root} has {place}, which {folder.root} has not: name the classes alike.")
    return classes, {"train": train, "test": _listing(Path(folder.test_root), below, classes)}


def read_listing(listing: Listing, folder: Folder) -> Images:
    """Decode the pictures; raises UserError as `decode_all`."""
    names = {str(listing.root / name): name for name in listing.names}
    found = decode_all(
        list(names),
        lambda path: listing.read(names[path]),
        side=folder.stored,
        skip=folder.skip,
        max_pixels=folder.max_pixels,
    )
    skipped = tuple(names[path] for path in found.skipped)
    kept = tuple(listing.names[row] for row in found.kept.tolist())
    return Images(found.images, listing.labels[found.kept], skipped, found.sizes, found.hashes, kept)


def restricted(root: Path, classes: Collection[str]) -> Listing:
    """The pictures of ``classes`` below ``root``; raises UserError if a class has none."""
    found = [name for wnid in classes if (root / wnid).is_dir() for name in pictures_below(root / wnid, f"{wnid}/")]
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


def _listing(root: Path, below: _Below, classes: list[str]) -> Listing:
    number = {name: place for place, name in enumerate(classes)}
    labels = torch.tensor([number.get(_class(name), -1) for name in below.names])
    return Listing(root, below.names, labels, notes=tuple(below.notes(root)))


def _class(name: str) -> str:
    return name.rpartition("/")[0]


def pictures_below(root: Path, prefix: str = "") -> list[str]:
    """Paths below ``root`` of all pictures, sorted alike on every machine; links are followed."""
    return _look(root, prefix).names


@dataclass(slots=True)
class _Below:
    """What lies below a folder."""

    names: list[str] = field(default_factory=list)  # of pictures, sorted
    empty: list[str] = field(default_factory=list)  # folders without a picture, sorted
    others: Counter[str] = field(default_factory=Counter)  # files that are no pictures by their ending, by ending

    def notes(self, root: Path) -> Iterator[str]:
        """What is passed over and may not be meant to be."""
        if self.empty:
            such = repr(self.empty[0])
            yield f"{len(self.empty)} folder(s) of {root} hold no pictures and are no classes, such as {such}."
        if self.others:
            endings = ", ".join(ending or "without one" for ending, _ in sorted(self.others.most_common(SHOWN_ENDINGS)))
            more = " and others" if len(self.others) > SHOWN_ENDINGS else ""
            yield f"{self.others.total()} file(s) of {root} are passed over for their endings: {endings}{more}."


def _look(root: Path, prefix: str = "") -> _Below:
    """All that is below ``root``; raises UserError if it cannot be looked into or has no picture."""
    below = _Below()
    found = below.names

    def visit(folder: Path, before: str, above: frozenset[tuple[int, int]]) -> None:
        stat = os.stat(folder)
        here = (stat.st_dev, stat.st_ino)
        if here in above:
            raise UserError(f"{folder} is a link to a folder that it lies in: remove it.")
        count = len(found)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    visit(folder / entry.name, f"{before}{entry.name}/", above | {here})
                elif not (entry.is_file() or entry.is_symlink()):
                    continue
                elif entry.name.lower().endswith(ENDINGS):
                    found.append(before + entry.name)
                else:
                    below.others[os.path.splitext(entry.name)[1].lower()] += 1
        if len(found) == count:
            below.empty.append(before[:-1])

    try:
        visit(root, prefix, frozenset())
    except OSError as error:
        raise UserError(f"Cannot look into {error.filename or root}: {error.strerror}; give another folder.") from error
    if not found:
        raise UserError(f"{root} holds no pictures: expected files ending in {', '.join(ENDINGS)}.")
    found.sort()
    below.empty.sort()
    return below
