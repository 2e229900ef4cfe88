"""The journal of packing: a line for every picture that is done, by which packing resumes after a kill."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

import numpy as np

from ssl_bench.data.images import HASH_BYTES, hash_of
from ssl_bench.data.pack_file import HEADER

LINE = re.compile(rf"(?:(\d+) (\d+) ([0-9a-f]{{{2 * HASH_BYTES}}})|- (.+))\n")

# Of a picture that has a row: height and width before it was squashed, and the hash of the row. Else why it has none.
Entry = tuple[tuple[int, int], bytes] | str


def line(entry: Entry) -> bytes:
    if isinstance(entry, str):
        return f"- {entry}\n".encode()
    (height, width), digest = entry
    return f"{height} {width} {digest.hex()}\n".encode()


def resumed(title: bytes, count: int, row_bytes: int, rows: BinaryIO, lines: BinaryIO) -> list[Entry]:
    """What an earlier call did as far as the rows have their hashes, with both files cut to it and open at their ends.

    title: the first line, which identifies the pictures. count: of pictures; row_bytes: of an image.
    """
    lines.seek(0)
    rows.seek(HEADER)
    done: list[Entry] = []
    end, kept = len(title), 0
    if lines.readline() == title:
        for text in lines:
            match = LINE.fullmatch(text.decode(errors="replace"))
            if match is None or len(done) == count:
                break
            height, width, digest, reason = match.groups()
            if reason:
                done.append(reason)
            elif hash_of(np.frombuffer(rows.read(row_bytes), np.uint8)).hex() == digest:
                done.append(((int(height), int(width)), bytes.fromhex(digest)))
                kept += 1
            else:
                break
            end += len(text)
    else:
        lines.truncate(0)
        lines.write(title)
        lines.flush()
    lines.truncate(end)
    lines.seek(end)
    rows.truncate(HEADER + kept * row_bytes)
    rows.seek(0, os.SEEK_END)
    return done
