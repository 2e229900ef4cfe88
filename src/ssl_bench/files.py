"""Files that are there whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssl_bench.errors import NO_ROOM, UserError, is_full


def name_of(identity: Mapping[str, Any]) -> str:
    """A file's name, by all that its content depends on."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, make it durable, then put it in place.

    Whatever goes wrong, the file that was at ``path`` before stays as it was. UserError where the disk refuses.
    """
    write_together({path: write})


def write_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """``write_whole`` for files of one folder that belong together: all are filled before one is put in place.

    A kill while they are put in place leaves some of them missing, but never old ones beside new ones. UserError
    for a device or a folder, in whose place no file belongs.
    """
    for path in writers:
        if not path.name or (path.exists() and not path.is_file()):
            raise UserError(f"{path} is {'a folder' if path.is_dir() else 'no file'}: name a file to write.")
    first, *others = writers
    # The suffix shows writers the format.
    temporaries = {path: path.with_name(f".{path.stem}.tmp{path.suffix}") for path in writers}
    path = first
    try:
        first.parent.mkdir(parents=True, exist_ok=True)
        for path, write in writers.items():
            write(temporaries[path])
            with temporaries[path].open("rb") as file:
                os.fsync(file.fileno())
        for path in others:
            path.unlink(missing_ok=True)
        for path, temporary in temporaries.items():
            temporary.replace(path)
        sync_folder(first.parent)
    except BaseException as error:
        for temporary in temporaries.values():
            with suppress(OSError):  # its folder may be no folder
                temporary.unlink(missing_ok=True)
        refusal = _refusal(error)
        if refusal is not None:
            raise UserError(_refused(path, refusal), NO_ROOM if is_full(refusal) else None) from error
        raise


def require_writable(folder: Path, option: str) -> None:
    """UserError, before hours of work, if no file can be made in ``folder``, which is made if it is missing.

    option: with its value, as the user sets it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"0")  # a full disk may have room for a name still
    except OSError as error:
        raise UserError(f"{option} cannot be written ({reason(error)}): choose another.") from None


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole; bytes of a path that are none become \\udcXX, which JSON reads back."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


def csv_text(heading: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Comma-separated values below a ``heading``, a line each."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return text.getvalue()


def _refusal(error: BaseException) -> OSError | None:
    """The system's refusal behind ``error``: torch.save buries it under a RuntimeError of its zip writer."""
    if isinstance(error, RuntimeError):
        return error.__context__ if isinstance(error.__context__, OSError) else None
    return error if isinstance(error, OSError) else None


def _refused(path: Path, error: OSError) -> str:
    return (
        f"{path} could not be saved ({reason(error)}); what was there before is intact. "
        "Make room or choose another folder, then run the same command again."
    )


def reason(error: OSError) -> str:
    """Why the system refused to write."""
    return "no space left" if is_full(error) else error.strerror or str(error)


def sync_folder(folder: Path) -> None:
    """Make a rename itself durable, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
