"""The file that packed pictures lie in: how it is finished, read and verified; nothing of where the pictures come from.

It is in the official safetensors format: a header of JSON, then tensors, for the splits ``train`` and ``test``:

    <split>.images   uint8 [M, 3, S, S]
    <split>.labels   int64 [M]
    <split>.sizes    int64 [M, 2], of the originals
    <split>.hashes   uint8 [M, 16]
    <split>.names    uint8, JSON
    <split>.skipped  uint8, JSON, names and reasons

``hashes`` are the first 16 bytes of SHA-256 over the pixels of each image, and the header has a BLAKE2b-128 over itself
and all tensors but the images. The rows, one for each image, first those of train, begin behind the header.

Shapes: M images of a split, S × S pixels as kept.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_bench.data.images import HASH_BYTES, hash_of
from ssl_bench.errors import UserError
from ssl_bench.machine import cores

SPLITS = ("train", "test")
HEADER = 4096  # bytes before the first image, a page
BLOCK = 64  # images that a thread verifies at a time
LENGTH = 8  # bytes that hold the length of the JSON
TYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype("u1"), "I64": np.dtype("<i8")}


class Part(NamedTuple):
    """What is known of the images of a split, beside their pixels; whole numbers first."""

    labels: NDArray[np.int64]  # [M]
    sizes: NDArray[np.int64]  # [M, 2]
    hashes: NDArray[np.uint8]  # [M, HASH_BYTES]
    names: list[str]
    skipped: list[tuple[str, str]]  # names of pictures that have no row, and why


def finish(rows: BinaryIO, side: int, parts: Mapping[str, Part], about: dict[str, Any]) -> None:
    """Append the parts to the rows, then write the header, and make all of it durable.

    rows: open at the end of the last row. side: S. about: what else the header is to hold.
    """
    shapes = {f"{split}.images": ("U8", [len(parts[split].labels), 3, side, side]) for split in SPLITS}
    filler = -sum(math.prod(shape) for _, shape in shapes.values()) % 8  # numbers begin at multiples of their length
    tail: dict[str, NDArray[Any]] = {"filler": np.zeros(filler, np.uint8)}
    for field in Part._fields:
        for split in SPLITS:
            values = getattr(parts[split], field)
            tail[f"{split}.{field}"] = values if isinstance(values, np.ndarray) else _text(values)
    for name, values in tail.items():
        shapes[name] = (next(code for code, kind in TYPES.items() if kind == values.dtype), list(values.shape))
    content = b"".join(values.astype(values.dtype.newbyteorder("<")).tobytes() for values in tail.values())
    tensors, at = {}, 0
    for name, (code, shape) in shapes.items():
        end = at + math.prod(shape) * TYPES[code].itemsize
        tensors[name] = {"dtype": code, "shape": shape, "data_offsets": [at, end]}
        at = end
    about = {**about, "checksum": _checksum(about, tensors, content)}
    header = json.dumps({"__metadata__": {"ssl_bench": json.dumps(about)}, **tensors}).encode().ljust(HEADER - LENGTH)
    assert len(header) == HEADER - LENGTH
    rows.write(content)
    rows.flush()
    os.fsync(rows.fileno())
    rows.seek(0)
    rows.write(len(header).to_bytes(LENGTH, "little") + header)
    rows.flush()
    os.fsync(rows.fileno())


def _text(value: Any) -> NDArray[Any]:
    # Names may hold bytes that are no UTF-8, which Python keeps as lone surrogates: JSON in ASCII holds them too.
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _checksum(about: Mapping[str, Any], tensors: Mapping[str, Any], content: bytes) -> str:
    described = {name: value for name, value in about.items() if name != "checksum"}
    state = hashlib.blake2b(json.dumps([described, tensors]).encode(), digest_size=HASH_BYTES)
    state.update(content)
    return state.hexdigest()


class PackFile:
    """A finished file, mapped and checked but for its pixels; UserError if it is damaged or none of ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes = np.memmap(path, np.uint8, mode="c")
            length = int.from_bytes(self._bytes[:LENGTH].tobytes(), "little")
            header = json.loads(self._bytes[LENGTH:HEADER].tobytes()) if length + LENGTH == HEADER else {}
            self.about: dict[str, Any] = json.loads(header.pop("__metadata__")["ssl_bench"])
            self._tensors: dict[str, Any] = header
            end = max(entry["data_offsets"][1] for entry in header.values())
            begin = max(header[f"{split}.images"]["data_offsets"][1] for split in SPLITS)
            if len(self._bytes) != HEADER + end:
                raise ValueError(f"it has {len(self._bytes):,} bytes where {HEADER + end:,} are expected")
            if _checksum(self.about, header, self._bytes[HEADER + begin :].tobytes()) != self.about["checksum"]:
                raise ValueError("its labels, sizes or names have changed")
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            plain = type(error) is ValueError
            raise damaged(path, str(error) if plain else "it has not the header of a pack") from None

    def array(self, name: str) -> NDArray[Any]:
        """A tensor; what is written to it stays in memory, and the file as it is."""
        entry = self._tensors[name]
        begin, end = entry["data_offsets"]
        values = np.asarray(self._bytes[HEADER + begin : HEADER + end]).view(TYPES[entry["dtype"]])
        shaped: NDArray[Any] = values.reshape(entry["shape"])
        return shaped

    def text(self, name: str) -> Any:
        try:
            return json.loads(self.array(name).tobytes())
        except (ValueError, RecursionError):
            raise damaged(self.path, f"its {name} are no list") from None

    def images(self, split: str) -> Tensor:
        """uint8 [M, 3, S, S], the file's own memory, read from the disk on access."""
        return torch.from_numpy(self.array(f"{split}.images"))


def verify(path: Path) -> None:
    """Read all of a pack and compare it with its checksums.

    Raises:
        UserError: it is damaged, at the first image that is named; or it is no pack.
    """
    found = PackFile(path)
    with ThreadPoolExecutor(cores()) as pool:
        for split in SPLITS:
            wrong = partial(_changed, found.images(split).numpy(), found.array(f"{split}.hashes"))
            for row in pool.map(wrong, range(0, len(found.images(split)), BLOCK)):
                if row is not None:
                    pool.shutdown(cancel_futures=True)
                    raise damaged(path, f"the pixels of {found.text(f'{split}.names')[row]} have changed")


def _changed(images: NDArray[np.uint8], hashes: NDArray[np.uint8], first: int) -> int | None:
    """The first of BLOCK rows whose pixels have not their hash."""
    rows = range(first, min(first + BLOCK, len(images)))
    return next((row for row in rows if hash_of(images[row]) != bytes(hashes[row])), None)


def damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is no pack of ssl_bench or is damaged ({reason}): remove it and pack the pictures anew.")
