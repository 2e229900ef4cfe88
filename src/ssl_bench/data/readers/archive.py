"""Datasets published as an archive of one folder: found packed or unpacked, and read without being unpacked."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from torch import Tensor

from ssl_bench.data.readers.downloads import Published, download
from ssl_bench.errors import UserError

MEND = "replace it with an intact copy, or remove it so that another source is used."
A = TypeVar("A", bound="Archive")
STEP = 1 << 20  # bytes read at a time where nothing is kept


@dataclass(frozen=True, kw_only=True)
class Archive(Published):
    """A published archive; the folder in it may lie unpacked instead."""

    folder: str
    files: tuple[str, ...]  # of the folder, which is complete with them
    dataset: str  # in the catalog; its files may lie in a folder of this name

    def find(self, data_dir: Path) -> Path | None:
        """A folder with all of the files, else the archive, in ``data_dir`` or in the dataset's folder there."""
        for folder in self._folders(data_dir):  # what is unpacked need not be unpacked again
            if all(os.path.isfile(folder / file) for file in self.files):
                return folder
        archives = (data_dir / self.name, data_dir / self.dataset / self.name)
        return next(filter(os.path.isfile, archives), None)

    def lacking(self, data_dir: Path) -> str:
        """`` (… lacks …)`` of the first unpacked folder that has some of its files and not all, "" if there is none."""
        for folder in self._folders(data_dir):
            absent = [file for file in self.files if not os.path.exists(folder / file)]
            if 0 < len(absent) < len(self.files):
                return f" ({folder} lacks {absent[0]})"
        return ""

    def _folders(self, data_dir: Path) -> tuple[Path, ...]:
        """Where the unpacked files may lie: in the archive's folder, or without it."""
        return data_dir / self.folder, data_dir / self.dataset / self.folder, data_dir / self.dataset


def located(archives: Sequence[A], data_dir: Path, *, url: str, title: str) -> tuple[A, Path]:
    """The first of a dataset's archives that is there, else the first of all, downloaded from ``url``; and its path.

    title: of the dataset. Raises UserError where nothing is there and nothing can be downloaded.
    """
    for archive in archives:
        path = archive.find(data_dir)
        if path is not None:
            return archive, path
    first = archives[0]
    lacking = "".join(archive.lacking(data_dir) for archive in archives)
    missing = (
        f"{title}{lacking} is not there: put {first.name} into {data_dir}, packed or unpacked, or connect to the "
        f"internet so that it can be downloaded from {url}{first.name}"
    )
    download([first], url, data_dir, missing=missing)
    return first, data_dir / first.name


def streams(path: Path, archive: Archive) -> Iterator[tuple[str, IO[bytes], int]]:
    """Name, open stream and size of each file of ``archive`` at ``path``, its folder or its .tar.gz.

    They come in the archive's order, and each must be read before the next is asked for. Read them within `intact`.

    Raises:
        UserError: the archive lacks a file.
    """
    if path.is_dir():
        for name in archive.files:
            with open(path / name, "rb") as file:
                yield name, file, os.fstat(file.fileno()).st_size
        return
    wanted = {str(PurePosixPath(archive.folder, name)): name for name in archive.files}
    with gzip.open(path) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as tar:
        for member in tar:
            name = wanted.pop(str(PurePosixPath(member.name)), "")
            if not name:
                continue
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is None:
                raise misfit(path, f"{member.name} to be a file", "none")
            with stream:
                yield name, stream, member.size
        if wanted:
            raise misfit(path, f"{min(wanted)} in it", "no such file")
        while unzipped.read(STEP):  # to the end, where the checksum stands
            pass


def misfit(file: Path | str, expected: str, found: object, wrong: str = "is damaged") -> UserError:
    """The error for a file that is not as it was published. found: what it has, or with what its reader fails."""
    colon = ":" if isinstance(found, Exception) else ""
    found = " ".join(str(found).split()) or type(found).__name__
    return UserError(f"{file} {wrong}: expected {expected}, found{colon} {found}; {MEND}")


def check_labels(labels: Tensor, first: int, classes: int, file: Path | str) -> Tensor:
    """Labels from 0, int64, out of those of a file, which begin with ``first``; UserError for one out of range."""
    wrong = ((labels < first) | (labels >= first + classes)).nonzero()[:, 0].tolist()
    if wrong:
        found = f"{int(labels[wrong[0]])} at position {wrong[0]}"
        raise misfit(file, f"{first} to {first + classes - 1}", found, "holds a label out of range")
    return labels.long() - first


@contextmanager
def intact(path: Path) -> Iterator[None]:
    """One sentence where ``path`` cannot be read or is damaged."""
    try:
        yield
    # The last two: headers without end, numbers that are none, members that are encrypted or of an unknown kind.
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        raise misfit(path, "a whole archive", error) from error
    except OSError as error:
        raise UserError(
            f"Cannot read {error.filename or path}: expected a readable file, found: {error.strerror or error}; "
            "mend its permissions or replace it."
        ) from error
