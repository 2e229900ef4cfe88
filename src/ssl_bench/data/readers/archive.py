"""Files of a dataset that lie in a folder or in a .tar.gz of that folder; an archive is read, never unpacked."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from ssl_bench.data.readers.idx import MEND
from ssl_bench.errors import UserError

STEP = 1 << 20  # bytes read at a time where nothing is kept
HEADER = 1 << 20  # bytes; the longest names need a few thousand
LONG = (  # what tarfile reads into memory as a whole
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


class Header(tarfile.TarInfo):
    """A tar's header; the kinds that tarfile reads into memory as a whole must be small."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in LONG and header.size > HEADER:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def find(data_dir: Path, name: str, folder: str, archive: str, files: Collection[str]) -> Path | None:
    """A folder with all of the ``files``, as `folders` names it, else their ``archive`` in ``data_dir`` or ``name``."""
    for place in folders(data_dir, name, folder):  # what is unpacked need not be unpacked again
        if all(is_file(place / file) for file in files):
            return place
    return next((place / archive for place in (data_dir, data_dir / name) if is_file(place / archive)), None)


def folders(data_dir: Path, name: str, folder: str) -> tuple[Path, ...]:
    """Where the unpacked files of the dataset ``name`` may lie: in the archive's ``folder``, or without it."""
    return (data_dir / folder, data_dir / name / folder, data_dir / name)


def is_file(path: Path) -> bool:
    """Whether a file is there; UserError where something else is, as a pipe, which one could wait for without end."""
    # Unlike Path.exists, False where a folder may not be entered.
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is no regular file: remove it, or put the file in its place.")
    return os.path.isfile(path)


def lacking(data_dir: Path, name: str, folder: str, files: Collection[str]) -> str:
    """`` (… lacks …)`` of the first unpacked folder that has some of its files and not all, "" if there is none."""
    for place in folders(data_dir, name, folder):
        absent = [file for file in files if not os.path.exists(place / file)]
        if 0 < len(absent) < len(files):
            return f" ({place} lacks {absent[0]})"
    return ""


def streams(path: Path, folder: str, files: Collection[str], largest: int) -> Iterator[tuple[str, IO[bytes], int]]:
    """Name, open stream and size of each of ``files`` in the folder ``path`` or in the .tar.gz ``path``.

    They come in the archive's order, and each must be read before the next is asked for. Read them within `intact`.
    largest: bytes of a file; one that claims to have more is not read, so that no small archive fills the memory.

    Raises:
        UserError: a file is missing or too large, or one in the archive would leave its folder if it were unpacked.
    """
    if path.is_dir():
        for name in files:
            with open(path / name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                check_size(str(path / name), size, largest)
                yield name, file, size
        return
    wanted = {str(PurePosixPath(folder, name)): name for name in files}
    with gzip.open(path) as unzipped, tarfile.open(fileobj=unzipped, mode="r:", tarinfo=Header) as tar:
        for member in tar:
            check_inside(path, member.name)
            name = wanted.pop(str(PurePosixPath(member.name)), "")
            if not name:
                continue
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is None:
                raise UserError(f"{path} is damaged: expected {member.name} to be a file, found none; {MEND}")
            check_size(f"{name} of {path}", member.size, largest)
            with stream:
                yield name, stream, member.size
        if wanted:
            raise UserError(f"{path} is damaged: expected {min(wanted)} in it, found no such file; {MEND}")
        while unzipped.read(STEP):  # to the end, where the checksum stands
            pass


def check_size(file: str, size: int, largest: int) -> None:
    """Refuse what claims to be larger than it can be before it is read into memory."""
    if size > largest:
        raise UserError(f"{file} is damaged: expected at most {largest} bytes, found {size}; {MEND}")


def check_inside(path: Path, name: str) -> None:
    """Refuse an archive that would write outside the folder it is unpacked to, even though we do not unpack it."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or parts[:1] == ("/",):
        raise UserError(f"{path} is not to be trusted: its member {name!r} would leave the folder; {MEND}")


@contextmanager
def intact(path: Path) -> Iterator[None]:
    """Say in one sentence that ``path`` cannot be read or is damaged."""
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
        raise UserError(f"{path} is damaged: expected a whole archive, found: {error}; {MEND}") from error
    except OSError as error:
        raise UserError(
            f"Cannot read {error.filename or path}: expected a readable file, found: {error.strerror or error}; "
            "mend its permissions or replace it."
        ) from error
