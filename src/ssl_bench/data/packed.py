"""Pictures squashed once into one file that is mapped into memory, for sets that are larger than memory should hold.

The file is in the official safetensors format: a header of JSON, then tensors, for the splits ``train`` and ``test``:

    <split>.images  u8 [M, 3, S, S]    <split>.labels  int64 [M]       <split>.sizes    int64 [M, 2], of the originals
    <split>.hashes  u8 [M, 16]         <split>.names   u8, JSON [M]    <split>.skipped  u8, JSON, names and reasons

``hashes`` are the first 16 bytes of SHA-256 over the pixels of each image, and the header has a BLAKE2b-128 over itself
and all tensors but the images. What is read from it equals what would have been decoded into memory, bit for bit.

While it is written, it is called ``….partial``, and ``….journal`` beside it has a line for every picture whose row is
safely on the disk: after ``kill -9`` the same call goes on behind the last one. It gets its name when it is whole.

Shapes: M images of a split, S × S pixels as kept.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import re
import shlex
import shutil
import warnings
from array import array
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from ssl_bench.data.images import HASH_BYTES, Images, hash_of
from ssl_bench.data.readers.folder import Folder, Listing, read_listing
from ssl_bench.data.readers.pictures import Picture, broken, decoded
from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.data.catalog import Dataset

FORMAT = 1  # of the file; raised when pixels of the same pictures would differ
SPLITS = ("train", "test")
HEADER = 4096  # bytes before the first image, a page
LENGTH = 8  # bytes that tell the length of the JSON
GROUP = 256  # pictures between two lines drawn in the journal
TYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype("u1"), "I64": np.dtype("<i8")}
LINE = re.compile(rf"(?:(\d+) (\d+) ([0-9a-f]{{{2 * HASH_BYTES}}})|- (.+))\n")


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
    if folder.memory is None or source.bytes <= folder.memory:
        return {split: read_listing(listing, folder) for split, listing in pictures.items()}
    stale = [path for path in packs if _place(path) == source.place]
    if stale:
        raise UserError(
            f"{stale[0]} no longer fits {source.root}, where pictures have come, gone or changed: pack them anew by: "
            f"{source.command}"
        )
    raise UserError(
        f"The pictures of {source.root} need {source.bytes / 2**30:.2f} GiB of memory, more than dataset.memory="
        f"{folder.memory / 2**30:g}: raise it, or pack them into a file by: {source.command}"
    )


def pack(dataset: Dataset, folder: Folder, data_dir: Path, *, progress: Callable[[int, int], None]) -> Path:
    """Pack the pictures of a dataset on all cores, going on where an earlier call was interrupted; returns the file.

    A few pictures per core are in memory at a time. ``progress`` is told how many are done, of how many. A file that
    fits is left as it is, and nothing told; one of the same folder that no longer fits is removed when the new one is
    there.

    Raises:
        UserError: the dataset has no pictures in files, one is broken (unless they are skipped), there is no room or no
            right to write, or another process packs the same.
    """
    if dataset.pictures is None:
        raise UserError(f"{dataset.name} always fits into memory: there is nothing to be packed.")
    source = _Source(dataset.name, dataset.pictures(Path(data_dir)), folder, Path(data_dir))
    if source.path.exists():
        _Pack(source.path)  # UserError if it is damaged
        return source.path
    with _refusals_told(source.path):
        source.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(source.path.with_name(f".{source.path.stem}.lock"), timeout=0):
                if not source.path.exists():
                    _write(source, progress)
        except Timeout:
            raise UserError(f"Another process packs {source.path}: wait for it, or stop it first.") from None
    return source.path


def verify(path: Path) -> None:
    """Read all of a pack and compare it with its checksums.

    Raises:
        UserError: it is damaged, at the first image that is named; or it is no pack.
    """
    found = _Pack(path)

    def wrong(rows: range) -> int | None:
        for row in rows:
            if hash_of(np.frombuffer(found.pixels(row), np.uint8)) != found.hash(row):
                return row
        return None

    blocks = [range(first, min(first + 64, found.rows)) for first in range(0, found.rows, 64)]
    with ThreadPoolExecutor(_cores()) as pool:
        for row in pool.map(wrong, blocks):
            if row is not None:
                pool.shutdown(cancel_futures=True)
                raise _damaged(path, f"the pixels of {found.name(row)} have changed")


# -- what is packed -------------------------------------------------------------------------------


@dataclass
class _Source:
    """Pictures, how they are kept, and where their pack lies."""

    dataset: str
    pictures: Mapping[str, Listing]
    folder: Folder
    data_dir: Path

    @property
    def count(self) -> int:
        return sum(len(listing.names) for listing in self.pictures.values())

    @property
    def row(self) -> int:
        """Bytes of an image."""
        return 3 * self.folder.stored**2

    @property
    def bytes(self) -> int:
        """Bytes of all images."""
        return self.count * self.row

    @property
    def root(self) -> Path:
        return self.pictures["train"].root

    @cached_property
    def key(self) -> str:
        """Stands for everything that the pack's content follows from: a picture's name, size and time of change."""
        said: list[Any] = [FORMAT, self.folder.stored, self.folder.max_pixels]
        for split in SPLITS:
            listing = self.pictures[split]
            files = [listing.root] if listing.root.is_file() else [listing.root / name for name in listing.names]
            said += [listing.names, listing.labels.tolist(), [_stamp(file) for file in files]]
        return _short(said)

    @cached_property
    def place(self) -> str:
        """Stands for where the pictures lie, without telling it."""
        roots = [str(self.pictures[split].root.absolute()) for split in SPLITS]
        return _short([self.dataset, self.folder.stored, self.folder.max_pixels, *roots])

    @property
    def path(self) -> Path:
        return self.data_dir / "packed" / f"{self._stem}-{self.key}.safetensors"

    def siblings(self) -> list[Path]:
        """Packs, finished or not, of the same dataset at the same side."""
        return sorted((self.data_dir / "packed").glob(f"{self._stem}-*.safetensors*"))

    @property
    def _stem(self) -> str:
        return f"{self.dataset}-{self.folder.stored}"

    @property
    def command(self) -> str:
        """What packs these pictures."""
        folder = self.folder
        words = {
            "dataset": self.dataset,
            "dataset.root": folder.root,
            "dataset.test_root": folder.test_root,
            "dataset.stored": folder.stored,
            "dataset.max_pixels": folder.max_pixels,
            "dataset.on_error": "skip" if folder.skip else None,
            "data_dir": self.data_dir,
        }
        said = [f"{key}={value}" for key, value in words.items() if value is not None]
        return shlex.join(["python", "-m", "ssl_bench.data", "pack", *said])


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:  # a broken picture, as will be told
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _short(said: Any) -> str:
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=6).hexdigest()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- writing --------------------------------------------------------------------------------------


@dataclass
class _Done:
    """What the journal tells: for each picture, in their order, what became of it."""

    kept: list[int] = field(default_factory=list)  # positions of pictures that have a row
    sizes: array[int] = field(default_factory=lambda: array("q"))  # [rows · 2]
    hashes: bytearray = field(default_factory=bytearray)  # [rows · HASH_BYTES]
    skipped: dict[int, str] = field(default_factory=dict)  # position, reason

    def __len__(self) -> int:
        return len(self.kept) + len(self.skipped)

    def add(self, found: Picture | str) -> str:
        """Take in what became of the next picture; returns its line."""
        if isinstance(found, str):
            self.skipped[len(self)] = found
            return f"- {found}\n"
        self.kept.append(len(self))
        self.sizes.extend(found.size)
        self.hashes += found.hash
        return f"{found.size[0]} {found.size[1]} {found.hash.hex()}\n"


def _write(source: _Source, progress: Callable[[int, int], None]) -> None:
    partial = source.path.with_name(f"{source.path.name}.partial")
    journal = source.path.with_name(f"{source.path.name}.journal")
    names = [(split, name) for split in SPLITS for name in source.pictures[split].names]
    paths = [str(source.pictures[split].root / name) for split, name in names]
    listed = dict(zip(paths, names, strict=True))

    def content(path: str) -> bytes:
        split, name = listed[path]
        return source.pictures[split].read(name)

    with partial.open("r+b" if partial.exists() else "w+b") as rows, journal.open("a+b") as lines:
        done = _resumed(source, rows, lines)
        _require_room(source, partial)
        for position, reason in done.skipped.items():
            if not source.folder.skip:
                raise broken(paths[position], reason)
        progress(len(done), len(paths))
        found = decoded(
            paths[len(done) :],
            content,
            side=source.folder.stored,
            max_pixels=source.folder.max_pixels,
            threads=_cores(),
        )
        with closing(found), closing(_Journal(rows, lines)) as told:
            for picture in found:
                if isinstance(picture, Picture):
                    rows.write(picture.pixels.data)
                elif not source.folder.skip:
                    raise broken(paths[len(done)], picture)
                told.add(done.add(picture))
                progress(len(done), len(paths))
        _finish(source, done, rows)
    os.replace(partial, source.path)
    _sync_folder(source.path.parent)
    journal.unlink()
    for path in source.siblings():
        if path != source.path and _place(path) == source.place:
            path.unlink()
            path.with_name(f"{path.name.removesuffix('.partial')}.journal").unlink(missing_ok=True)


class _Journal:
    """Makes rows durable, then the lines that tell of them, while the next rows are decoded."""

    def __init__(self, rows: BinaryIO, lines: BinaryIO) -> None:
        self._rows = rows
        self._lines = lines
        self._waiting: list[str] = []
        self._pool = ThreadPoolExecutor(1)
        self._underway: Future[None] | None = None

    def add(self, line: str) -> None:
        self._waiting.append(line)
        if len(self._waiting) == GROUP:
            self._flush()

    def close(self) -> None:
        with self._pool:
            self._flush()
            if self._underway is not None:
                self._underway.result()

    def _flush(self) -> None:
        if self._underway is not None:
            self._underway.result()
        self._rows.flush()
        self._underway = self._pool.submit(self._keep, "".join(self._waiting).encode())
        self._waiting = []

    def _keep(self, text: bytes) -> None:
        os.fsync(self._rows.fileno())
        self._lines.write(text)
        self._lines.flush()
        os.fsync(self._lines.fileno())


def _resumed(source: _Source, rows: BinaryIO, lines: BinaryIO) -> _Done:
    """What an earlier call did, with both files cut to it and open at their ends."""
    title = f"{source.key} {source.place}\n".encode()
    lines.seek(0)
    done, end = _Done(), len(title)
    size = os.fstat(rows.fileno()).st_size
    if lines.readline() == title:
        for line in lines:
            match = LINE.fullmatch(line.decode(errors="replace"))
            if match is None or len(done) == source.count:
                break
            height, width, digest, reason = match.groups()
            if digest and HEADER + (len(done.kept) + 1) * source.row > size:
                break
            pixels = np.empty(0, np.uint8)  # they are on the disk
            done.add(reason if digest is None else Picture(pixels, (int(height), int(width)), bytes.fromhex(digest)))
            end += len(line)
    else:
        lines.truncate(0)
        lines.write(title)
        lines.flush()
    lines.truncate(end)
    lines.seek(end)
    rows.truncate(HEADER + len(done.kept) * source.row)
    rows.seek(0, os.SEEK_END)
    return done


def _require_room(source: _Source, partial: Path) -> None:
    names = sum(len(name.encode()) + 4 for listing in source.pictures.values() for name in listing.names)
    needed = HEADER + source.bytes + source.count * (24 + HASH_BYTES + 60) + names - partial.stat().st_size
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        raise UserError(
            f"{partial.parent} has room for {free / 2**30:.2f} GiB, but the pack needs {needed / 2**30:.2f}: "
            "make room, or choose a smaller dataset.stored or another data_dir."
        )


def _finish(source: _Source, done: _Done, rows: BinaryIO) -> None:
    """Append what is known of the images, then write the header, and make all of it durable."""
    sizes = torch.tensor(done.sizes, dtype=torch.int64).view(-1, 2)
    hashes = torch.tensor(done.hashes, dtype=torch.uint8).view(-1, HASH_BYTES)
    images: dict[str, tuple[str, list[int], int]] = {}  # type, shape, bytes
    numbers: dict[str, NDArray[Any]] = {}
    texts: dict[str, NDArray[Any]] = {}
    first, row = 0, 0
    for split in SPLITS:
        listing = source.pictures[split]
        end = first + len(listing.names)
        kept = [position - first for position in done.kept if first <= position < end]
        skipped = [(listing.names[at - first], why) for at, why in done.skipped.items() if first <= at < end]
        chosen = slice(row, row + len(kept))
        images[f"{split}.images"] = ("U8", [len(kept), 3, *[source.folder.stored] * 2], len(kept) * source.row)
        numbers[f"{split}.labels"] = listing.labels[torch.tensor(kept, dtype=torch.int64)].numpy()
        numbers[f"{split}.sizes"] = sizes[chosen].numpy()
        texts[f"{split}.hashes"] = hashes[chosen].numpy()
        texts[f"{split}.names"] = _text([listing.names[position] for position in kept])
        texts[f"{split}.skipped"] = _text(skipped)
        first, row = end, row + len(kept)
    filler = np.zeros(-row * source.row % 8, np.uint8)  # whole numbers begin at multiples of their length
    tail = {"filler": filler, **numbers, **texts}
    layout = dict(images)
    for name, values in tail.items():
        code = next(code for code, kind in TYPES.items() if kind == values.dtype)
        layout[name] = (code, list(values.shape), values.nbytes)
    about = {"format": FORMAT, "dataset": source.dataset, "key": source.key, "place": source.place}
    content = b"".join(values.astype(values.dtype.newbyteorder("<")).tobytes() for values in tail.values())
    tensors, at = {}, 0
    for name, (code, shape, size) in layout.items():
        tensors[name] = {"dtype": code, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    about["checksum"] = _checksum(about, tensors, content)
    text = json.dumps({"__metadata__": {"ssl_bench": json.dumps(about)}, **tensors}).encode()
    text = text.ljust(HEADER - LENGTH)
    assert len(text) == HEADER - LENGTH
    rows.write(content)
    rows.flush()
    os.fsync(rows.fileno())
    rows.seek(0)
    rows.write(len(text).to_bytes(LENGTH, "little") + text)
    rows.flush()
    os.fsync(rows.fileno())


def _text(value: Any) -> NDArray[Any]:
    # Names may hold bytes that are no UTF-8, which Python keeps as lone surrogates: JSON in ASCII holds them too.
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _checksum(about: Mapping[str, Any], tensors: Mapping[str, Any], content: bytes) -> str:
    said = {name: value for name, value in about.items() if name != "checksum"}
    state = hashlib.blake2b(json.dumps([said, tensors]).encode(), digest_size=HASH_BYTES)
    state.update(content)
    return state.hexdigest()


@contextmanager
def _refusals_told(path: Path) -> Iterator[None]:
    """The disk's refusals as UserError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "no space left" if full else error.strerror or str(error)
        raise UserError(
            f"{path} could not be packed ({reason}): make room or choose another data_dir, then run the same command "
            "again to go on."
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# -- reading --------------------------------------------------------------------------------------


class _Pack:
    """A finished file, mapped and checked but for its pixels; UserError if it is damaged or none of ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            length = int.from_bytes(self._map[:LENGTH], "little")
            header = json.loads(self._map[LENGTH : LENGTH + length]) if length + LENGTH == HEADER else {}
            self.about: dict[str, Any] = json.loads(header.pop("__metadata__")["ssl_bench"])
            self._tensors: dict[str, Any] = header
            end = max(entry["data_offsets"][1] for entry in header.values())
            begin = max(header[f"{split}.images"]["data_offsets"][1] for split in SPLITS)
            if len(self._map) != HEADER + end:
                raise ValueError(f"it has {len(self._map):,} bytes where {HEADER + end:,} are expected")
            if _checksum(self.about, header, self._map[HEADER + begin :]) != self.about["checksum"]:
                raise ValueError("its labels, sizes or names have changed")
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            plain = type(error) is ValueError
            raise _damaged(path, str(error) if plain else "it has not the header of a pack") from None

    def array(self, name: str) -> NDArray[Any]:
        """A tensor that is no image, copied out of the file."""
        entry = self._tensors[name]
        begin, end = entry["data_offsets"]
        values: NDArray[Any] = np.frombuffer(self._map[HEADER + begin : HEADER + end], dtype=TYPES[entry["dtype"]])
        native: NDArray[Any] = values.astype(values.dtype.newbyteorder("=")).reshape(entry["shape"])
        return native

    def text(self, name: str) -> Any:
        return json.loads(self.array(name).tobytes())

    def images(self, split: str) -> Tensor:
        """u8 [M, 3, S, S], the file's own memory: shared, not to be written to, and read when it is looked at."""
        entry = self._tensors[f"{split}.images"]
        begin, end = entry["data_offsets"]
        if begin == end:
            return torch.empty(entry["shape"], dtype=torch.uint8)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            flat = torch.frombuffer(self._map, dtype=torch.uint8, count=end - begin, offset=HEADER + begin)
        return flat.view(entry["shape"])

    # Rows are numbered through both splits.

    @cached_property
    def _hashes(self) -> NDArray[Any]:
        return np.concatenate([self.array(f"{split}.hashes") for split in SPLITS])

    @property
    def rows(self) -> int:
        return len(self._hashes)

    def hash(self, row: int) -> bytes:
        return bytes(self._hashes[row])

    def pixels(self, row: int) -> memoryview:
        size = int(np.prod(self._tensors["train.images"]["shape"][1:]))
        return memoryview(self._map)[HEADER + row * size : HEADER + (row + 1) * size]

    def name(self, row: int) -> str:
        return str([name for split in SPLITS for name in self.text(f"{split}.names")][row])


def _images(source: _Source) -> dict[str, Images]:
    """The splits of the source's pack."""
    found = _Pack(source.path)
    if found.about["key"] != source.key:
        raise _damaged(source.path, "it is of other pictures")
    splits = {}
    for split in SPLITS:
        skipped = found.text(f"{split}.skipped")
        if skipped and not source.folder.skip:
            raise broken(str(source.pictures[split].root / skipped[0][0]), skipped[0][1])
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
    """``_Source.place`` of a finished or unfinished pack, None where it does not tell."""
    try:
        if path.suffix == ".partial":
            with path.with_name(f"{path.name.removesuffix('.partial')}.journal").open("rb") as lines:
                return lines.readline().decode().split()[1]
        return str(_Pack(path).about["place"]) if path.suffix == ".safetensors" else None
    except (UserError, OSError, ValueError, IndexError):
        return None


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is no pack of ssl_bench or is damaged ({reason}): remove it and pack the pictures anew.")
