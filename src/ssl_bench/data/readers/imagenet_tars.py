"""ImageNet (ILSVRC 2012) as it is published: tars that are listed once, by their headers, and never unpacked.

``ILSVRC2012_img_train.tar`` holds a tar ``n01440764.tar`` per class; ``ILSVRC2012_img_val.tar`` holds 50,000 pictures
whose classes stand in the development kit: the n-th line of its ground truth is the number of the n-th picture's class,
which ``meta.mat`` gives a WordNet name (readme.txt of the kit).
"""

import os
import re
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from ssl_bench.data.readers.archive import MEND, Archive, intact, misfit, streams
from ssl_bench.data.readers.folder import of_classes
from ssl_bench.data.readers.pictures import Listing
from ssl_bench.errors import UserError

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
KIT = "ILSVRC2012_devkit_t12"
TRUTH, META = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"
KIT_ARCHIVE = Archive(
    name=f"{KIT}.tar.gz",
    size=0,  # unknown: it is not fetched
    md5="fa75699e90414af021442c21a62c3abf",
    folder=KIT,
    files=(TRUTH, META),
    dataset=KIT,
)
CLASSES = 1_000  # of the challenge: the numbers above belong to groups of classes
NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


@dataclass(frozen=True, slots=True)
class Span:
    """Where in a tar a picture lies, in bytes."""

    offset: int
    size: int


def read_listing(path: Path, classes: Collection[str]) -> Listing:
    """The pictures of ``classes`` in one of the two tars, named and sorted as in an unpacked folder.

    Raises:
        UserError: the tar is cut short or not as published, or a class has no pictures; for the validation images, the
            kit is missing or damaged.
    """
    spans = _train(path, classes) if path.name == TRAIN else _validation(path, _truth(path.parent), classes)

    def content(name: str) -> bytes:
        span = spans[name]
        with open(path, "rb", buffering=0) as file:  # of its own, since several threads read
            file.seek(span.offset)
            return file.read(span.size)

    return of_classes(path, list(spans), classes, content)


def _train(path: Path, classes: Collection[str]) -> dict[str, Span]:
    """Pictures ``n01440764/n01440764_10026.JPEG`` of the classes."""
    found: dict[str, Span] = {}
    with intact(path), open(path, "rb") as file:
        for name, tar in _members(path, file, ".tar"):
            wnid = name.removesuffix(".tar")
            if wnid in classes:
                for picture, span in _members(path / name, file, ".JPEG", tar):
                    found[f"{wnid}/{picture}"] = span
    return found


def _validation(path: Path, truth: list[str], classes: Collection[str]) -> dict[str, Span]:
    """Pictures ``n01440764/ILSVRC2012_val_00000293.JPEG`` of the classes; ``truth`` has the class of each in turn."""
    found: dict[str, Span] = {}
    with intact(path), open(path, "rb") as file:
        for name, span in _members(path, file, ".JPEG"):
            number = NUMBER.fullmatch(name)
            place = int(number[1]) - 1 if number else -1
            if not 0 <= place < len(truth):
                raise UserError(
                    f"{path} holds {name}, but {KIT} gives the classes of {len(truth)} other pictures; {MEND}"
                )
            if truth[place] in classes:
                found[f"{truth[place]}/{name}"] = span
    return found


def _members(path: Path, file: IO[bytes], ending: str, within: Span | None = None) -> Iterator[tuple[str, Span]]:
    """Names of the files in a tar, or in the one ``within`` it, and their places in ``file``; reads only headers."""
    start, size = (within.offset, within.size) if within else (0, os.fstat(file.fileno()).st_size)
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            name = str(PurePosixPath(member.name))
            if member.isdir() or not name.endswith(ending):
                continue
            if not member.isreg() or member.issparse():
                raise misfit(path, f"{name} to be a file", "none")
            yield name, Span(member.offset_data, member.size)
        if tar.offset + tarfile.BLOCKSIZE > start + size:  # a tar ends with blocks of zeros
            raise EOFError("the end, too early")


def _truth(folder: Path) -> list[str]:
    """The WordNet name of each validation image's class, in turn."""
    path = KIT_ARCHIVE.find(folder)
    if path is None:
        raise UserError(f"The classes of {folder / VAL} are not there: put {KIT}.tar.gz beside it.")
    with intact(path):
        content = {name: stream.read() for name, stream, _ in streams(path, KIT_ARCHIVE)}
        names = _wordnet(content[META], f"{META} of {path}")
        numbers = content[TRUTH].split()
    wrong = [number for number in numbers if not number.isdigit() or int(number) not in names]
    if wrong or not numbers:
        found = wrong[0].decode(errors="replace") if wrong else "nothing"
        raise misfit(f"{TRUTH} of {path}", f"a number from 1 to {CLASSES} in each line", found)
    return [names[int(number)] for number in numbers]


def _wordnet(content: bytes, file: str) -> dict[int, str]:
    """The WordNet names of the classes by their numbers."""
    from scipy.io import loadmat  # takes long, and only these tars need it

    try:
        synsets = loadmat(BytesIO(content), variable_names=["synsets"], squeeze_me=True)["synsets"]
        pairs = zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True)
        return {int(number): str(wnid) for number, wnid in pairs if int(number) <= CLASSES}
    # A damaged file makes its reader stumble anywhere.
    except Exception as error:
        raise misfit(file, "MATLAB's table of synsets", error) from error
