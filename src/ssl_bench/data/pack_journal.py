"""The journal of packing: a line for every picture whose row is safely on the disk, so that packing can resume."""

from __future__ import annotations

import os
import re
from array import array
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from ssl_bench.data.images import HASH_BYTES
from ssl_bench.data.pack_file import HEADER
from ssl_bench.data.readers.pictures import Picture

GROUP = 256  # pictures between two lines drawn in the journal
LINE = re.compile(rf"(?:(\d+) (\d+) ([0-9a-f]{{{2 * HASH_BYTES}}})|- (.+))\n")


@dataclass
class Done:
    """What the journal records: for each picture, in their order, what became of it."""

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


def resumed(title: bytes, count: int, row_bytes: int, rows: BinaryIO, lines: BinaryIO) -> Done:
    """What an earlier call did, with both files cut to it and open at their ends.

    title: the first line, which identifies the pictures. count: of pictures; row_bytes: of an image.
    """
    lines.seek(0)
    done, end = Done(), len(title)
    size = os.fstat(rows.fileno()).st_size
    if lines.readline() == title:
        for line in lines:
            match = LINE.fullmatch(line.decode(errors="replace"))
            if match is None or len(done) == count:
                break
            height, width, digest, reason = match.groups()
            if digest and HEADER + (len(done.kept) + 1) * row_bytes > size:
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
    rows.truncate(HEADER + len(done.kept) * row_bytes)
    rows.seek(0, os.SEEK_END)
    return done


class Journal:
    """Makes rows durable, then their lines, while the next rows are decoded."""

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
