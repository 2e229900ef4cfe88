"""Files in the official formats, byte for byte."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import torch

from ssl_bench.data.readers.pictures import Listing


def python2_string(text: bytes) -> bytes:
    """As Python 2 pickles a str, under protocol 2."""
    return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text


def python2_int(number: int) -> bytes:
    return b"K" + bytes([number]) if number < 256 else b"M" + struct.pack("<H", number)


def python2_array(rows: np.ndarray) -> bytes:
    """As Python 2 and NumPy 1 pickle a matrix of bytes."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    shape = b"".join(python2_int(side) for side in rows.shape) + b"\x86"
    return array + b"(K\x01" + shape + kind + b"\x89" + python2_string(rows.tobytes()) + b"tb"


def python2_batch(rows: np.ndarray, labels: dict[str, list[int]]) -> bytes:
    """A batch of CIFAR's python version: uint8 rows [M, 3072] and lists of labels by key."""
    lists = b"".join(
        python2_string(key.encode()) + b"](" + b"".join(map(python2_int, values)) + b"e"
        for key, values in labels.items()
    )
    names = b"](" + python2_string(b"leptodactylus_pentadactylus_s_000004.png") + b"e"
    return (
        b"\x80\x02}("
        + (python2_string(b"batch_label") + python2_string(b"training batch 1 of 5"))
        + lists
        + (python2_string(b"data") + python2_array(rows))
        + (python2_string(b"filenames") + names)
        + b"u."
    )


def tarred(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    """A .tar.gz of files, or of whatever members are given whole."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else b""
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def unpacked(folder: Path, members: dict[str, bytes]) -> Path:
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def listed(content: dict[str, bytes]) -> Listing:
    """Pictures that lie in no folder, without labels."""
    return Listing(Path(), list(content), torch.full((len(content),), -1), content.__getitem__)
