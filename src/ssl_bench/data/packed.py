"""Pictures squashed once into one file that is mapped into memory, for sets that are larger than memory should hold.

What is read from the file (`pack_file`) equals what would have been decoded into memory, bit for bit. While it is
written it is called ``….partial``, and ``….journal`` beside it records how far it is (`pack_journal`): after
``kill -9`` the same call resumes there. It gets its name when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from rich.filesize import decimal

from ssl_bench.data.images import HASH_BYTES, Images
from ssl_bench.data.pack_file import HEADER, SPLITS, PackFile, Part, damaged, finish
from ssl_bench.data.pack_journal import Entry, line, resumed
from ssl_bench.data.readers.folder import Folder
from ssl_bench.data.readers.pictures import Listing, Picture, broken, decode_all, decoded
from ssl_bench.errors import UserError
from ssl_bench.files import reason, sync_folder
from ssl_bench.machine import cores

if TYPE_CHECKING:
    from ssl_bench.data.catalog import Dataset

FORMAT = 1  # raised when pixels of the same pictures would differ


def read(dataset: str, pictures: Mapping[str, Listing], folder: Folder, data_dir: Path) -> dict[str, Images]:
    """The pictures of each split: mapped from their pack if there is one, else decoded into memory.

    Raises:
        UserError: they need more memory than ``folder.memory`` and are not packed; the pack is damaged; or as
            ``decode_all``.
    """
    source = _Source(dataset, pictures, folder, Path(data_dir))
    packs = [path for path in source.siblings() if path.suffix == ".safetensors"]
    if packs and source.path in packs:
        return _images(source)
    if folder.memory is None or source.bytes <= folder.memory * 2**30:
        return {
            split: decode_all(listing, side=folder.stored, skip=folder.skip, max_pixels=folder.max_pixels)
            for split, listing in pictures.items()
        }
    stale = [path for path in packs if _place(path) == source.place]
    if stale:
        raise UserError(
            f"{stale[0]} no longer fits {source.root}, where pictures have come, gone or changed: pack them anew by: "
            f"{source.command}"
        )
    raise UserError(
        f"The pictures of {source.root} need {decimal(source.bytes)} of memory, more than dataset.memory="
        f"{folder.memory:g} GiB: raise it, or pack them into a file by: {source.command}"
    )


def pack(dataset: Dataset, data_dir: Path, *, progress: Callable[[int, int], None]) -> Path:
    """Pack a dataset of picture files on all cores, resuming where an earlier call was interrupted; returns the file.

    A few pictures per core are in memory at a time. ``progress`` is called with how many are done, of how many. A file
    that fits is left as it is, without a call; one of the same folder that no longer fits is removed when the new one
    is there.

    Raises:
        UserError: a picture is broken (unless they are skipped), there is no room or no right to write, or another
            process packs the same.
    """
    source = _source(dataset, data_dir)
    if source.path.exists():
        PackFile(source.path)  # UserError if it is damaged
        if not _left_over(source):
            return source.path
    try:
        source.path.parent.mkdir(parents=True, exist_ok=True)
        # Of the place: what another process packs of it, its files as they were then, is not left over.
        with FileLock(source.path.with_name(f".{source.dataset}-{source.place}.lock"), timeout=0):
            if not source.path.exists():
                _write(source, progress)
            for path in _left_over(source):
                path.unlink(missing_ok=True)
    except Timeout:
        raise UserError(
            f"Another process packs the pictures of {source.root}: wait for it, or stop it first."
        ) from None
    except OSError as error:
        raise UserError(
            f"{source.path} could not be packed ({reason(error)}): make room or choose another data_dir, then run the "
            "same command again to resume."
        ) from error
    return source.path


def finished(dataset: Dataset, data_dir: Path) -> Path | None:
    """The pack that the dataset is read from, None if there is none."""
    path = _source(dataset, data_dir).path if dataset.pictures else None
    return path if path and path.exists() else None


def skipped(path: Path) -> list[str]:
    """The pictures that a finished pack was made without, each with the reason."""
    found = PackFile(path)
    return [f"{name} ({why})" for split in SPLITS for name, why in found.text(f"{split}.skipped")]


@dataclass
class _Source:
    """Pictures, how they are kept, and where their pack lies."""

    dataset: str
    pictures: Mapping[str, Listing]
    folder: Folder
    data_dir: Path

    def __post_init__(self) -> None:
        self.count = sum(len(listing.names) for listing in self.pictures.values())
        self.row = 3 * self.folder.stored**2  # bytes of an image
        self.bytes = self.count * self.row  # of all images
        self.root = self.pictures["train"].root
        self.packs = self.data_dir / "packed"
        self.stem = f"{self.dataset}-{self.folder.stored}"  # of the names of packs
        # A hash of where the pictures lie.
        roots = [str(self.pictures[split].root.absolute()) for split in SPLITS]
        self.place = _short([self.dataset, self.folder.stored, self.folder.max_pixels, *roots])

    @cached_property
    def key(self) -> str:
        """A hash of all that the pack's content follows from: each picture's name, size and time of change."""
        content: list[Any] = [FORMAT, self.folder.stored, self.folder.max_pixels]
        for split in SPLITS:
            listing = self.pictures[split]
            files = [listing.root] if listing.root.is_file() else [listing.root / name for name in listing.names]
            content += [listing.names, listing.labels.tolist(), [_stamp(file) for file in files]]
        return _short(content)

    @property
    def path(self) -> Path:
        return self.packs / f"{self.stem}-{self.key}.safetensors"

    def siblings(self) -> list[Path]:
        """Packs, finished or not, of the same dataset at the same side."""
        found = self.packs.glob(f"{self.stem}-*.safetensors*")
        return sorted(path for path in found if path.suffix in (".safetensors", ".partial"))

    @property
    def command(self) -> str:
        """What packs these pictures."""
        options = [
            f"dataset.{key}={value}"
            for key, value in asdict(self.folder).items()
            if value is not None and key != "memory" and (key, value) != ("on_error", "stop")
        ]
        options = [f"dataset={self.dataset}", *options, f"data_dir={self.data_dir}"]
        return shlex.join(["python", "-m", "ssl_bench", "data", "pack", *options])


def _source(dataset: Dataset, data_dir: Path) -> _Source:
    assert dataset.pictures is not None
    assert dataset.folder is not None
    return _Source(dataset.name, dataset.pictures(data_dir), dataset.folder, data_dir)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:  # a broken picture, which will be shown
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _short(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=6).hexdigest()


def _write(source: _Source, progress: Callable[[int, int], None]) -> None:
    partial = source.path.with_name(f"{source.path.name}.partial")
    journal = _journal(source.path)
    listings = [source.pictures[split] for split in SPLITS]
    pictures = [(listing, name) for listing in listings for name in listing.names]
    with partial.open("r+b" if partial.exists() else "w+b") as rows, journal.open("a+b") as lines:
        title = f"{source.key} {source.place}\n".encode()
        done = resumed(title, source.count, source.row, rows, lines)
        _require_room(source, partial)
        for number, entry in enumerate(done):
            if isinstance(entry, str) and not source.folder.skip:
                raise broken(*pictures[number], entry)
        progress(len(done), len(pictures))
        found = decoded(
            pictures[len(done) :],
            side=source.folder.stored,
            max_pixels=source.folder.max_pixels,
            threads=cores(),
        )
        with closing(found):
            for picture in found:
                if isinstance(picture, Picture):
                    rows.write(picture.pixels.data)
                elif not source.folder.skip:
                    raise broken(*pictures[len(done)], picture)
                done.append((picture.size, picture.hash) if isinstance(picture, Picture) else picture)
                lines.write(line(done[-1]))
                lines.flush()
                progress(len(done), len(pictures))
        _finish(source, done, rows)
    os.replace(partial, source.path)
    sync_folder(source.path.parent)


def _left_over(source: _Source) -> list[Path]:
    """What a finished pack makes useless: its journal, and packs of the same place that no longer fit."""
    stale = [path for path in source.siblings() if path != source.path and _place(path) == source.place]
    journals = [_journal(path) for path in (*stale, source.path)]
    return [*stale, *(path for path in journals if path.exists())]


def _journal(path: Path) -> Path:
    """Beside a pack, finished or not."""
    return path.with_name(f"{path.name.removesuffix('.partial')}.journal")


def _require_room(source: _Source, partial: Path) -> None:
    names = sum(len(os.fsencode(name)) + 4 for listing in source.pictures.values() for name in listing.names)
    needed = HEADER + source.bytes + source.count * (24 + HASH_BYTES + 60) + names - partial.stat().st_size
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        raise UserError(
            f"{partial.parent} has room for {decimal(free)}, but the pack needs {decimal(needed)}: "
            "make room, or choose a smaller dataset.stored or another data_dir."
        )


def _finish(source: _Source, done: Sequence[Entry], rows: BinaryIO) -> None:
    """Write what is known of the images behind their rows."""
    parts, first = {}, 0
    for split in SPLITS:
        listing = source.pictures[split]
        entries = done[first : first + len(listing.names)]
        kept = [row for row, entry in enumerate(entries) if not isinstance(entry, str)]
        known = [entry for entry in entries if not isinstance(entry, str)]
        parts[split] = Part(
            labels=listing.labels[kept].numpy(),
            sizes=np.array([size for size, _ in known], np.int64).reshape(-1, 2),
            hashes=np.frombuffer(b"".join(digest for _, digest in known), np.uint8).reshape(-1, HASH_BYTES),
            names=[listing.names[row] for row in kept],
            skipped=[(name, why) for name, why in zip(listing.names, entries, strict=True) if isinstance(why, str)],
        )
        first += len(entries)
    about = {"format": FORMAT, "dataset": source.dataset, "key": source.key, "place": source.place}
    finish(rows, source.folder.stored, parts, about)


def _images(source: _Source) -> dict[str, Images]:
    """The splits of the source's pack."""
    found = PackFile(source.path)
    if found.about["key"] != source.key:
        raise damaged(source.path, "it is of other pictures")
    splits = {}
    for split in SPLITS:
        skipped = found.text(f"{split}.skipped")
        if skipped and not source.folder.skip:
            raise broken(source.pictures[split], *skipped[0])
        splits[split] = Images(
            images=found.images(split),
            labels=torch.from_numpy(found.array(f"{split}.labels")),
            skipped=tuple(name for name, _ in skipped),
            sizes=torch.from_numpy(found.array(f"{split}.sizes")),
            hashes=torch.from_numpy(found.array(f"{split}.hashes")),
            names=tuple(found.text(f"{split}.names")),
        )
    return splits


def _place(path: Path) -> str | None:
    """``_Source.place`` of a finished or unfinished pack, None where it is not known."""
    try:
        if path.suffix == ".partial":
            with _journal(path).open("rb") as lines:
                return lines.readline().decode().split()[1]
        return str(PackFile(path).about["place"]) if path.suffix == ".safetensors" else None
    except (UserError, OSError, ValueError, IndexError):
        return None
