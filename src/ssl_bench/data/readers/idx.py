"""The idx format of MNIST and its kin, plain or gzipped.

A file is: two zero bytes, one byte for the type, one for the number of dimensions, each dimension as a
big-endian uint32, then the values in C order, big-endian (http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_bench.data.images import Images
from ssl_bench.errors import UserError

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
LARGEST = 100_000_000  # bytes of an unzipped file; 60,000 images of 28 × 28 pixels have 47,040,016
MEND = "replace it with an intact copy, or remove it so that another source is used."


def read_idx(path: Path) -> Tensor:
    """The array in ``path``, with the shape and type the file states.

    Raises:
        UserError: the file cannot be read, is not idx, or is shorter or longer than its header says.
    """
    content = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES:
        raise UserError(
            f"{path} is not an idx file: expected it to begin with 0000 and a type from 08 to 0e, "
            f"found {content[:4].hex() or 'nothing'}; {MEND}"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise UserError(f"{path} is cut short: expected a header of {start} bytes, found {len(content)}; {MEND}")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    kind = np.dtype(TYPES[content[2]])
    expected = math.prod(shape) * kind.itemsize
    if len(content) - start != expected:
        wrong = "is cut short" if len(content) - start < expected else "is too long"
        raise UserError(
            f"{path} {wrong}: its header promises {' × '.join(map(str, shape))} values in {expected} bytes, "
            f"found {len(content) - start}; {MEND}"
        )
    values = np.frombuffer(content, kind, offset=start).astype(kind.newbyteorder("="))  # a copy: tensors are writable
    return torch.from_numpy(values).view(shape)


def read_pair(images_path: Path, labels_path: Path, classes: int) -> Images:
    """Gray images u8 ``[M, 1, H, W]`` with their labels in 0 … classes - 1.

    Raises:
        UserError: as `read_idx`; or a file holds something else, their lengths differ, or a label is out of range.
    """
    images = _read_bytes(images_path, "images", 3)
    labels = _read_bytes(labels_path, "labels", 1).long()
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} and {labels_path} do not belong together: expected as many labels as images, "
            f"found {len(images)} images and {len(labels)} labels; replace both with intact copies."
        )
    wrong = (labels >= classes).nonzero()[:, 0].tolist()
    if wrong:
        raise UserError(
            f"{labels_path} holds a label out of range: expected 0 to {classes - 1}, "
            f"found {int(labels[wrong[0]])} at position {wrong[0]}; {MEND}"
        )
    return Images(images.unsqueeze(1), labels)


def _read_bytes(path: Path, what: str, dimensions: int) -> Tensor:
    values = read_idx(path)
    if values.dtype != torch.uint8 or values.ndim != dimensions:
        raise UserError(
            f"{path} does not hold {what}: expected unsigned bytes in {dimensions} dimension(s), "
            f"found {values.dtype} in {values.ndim}; put the file of {what} in its place."
        )
    return values


def _content(path: Path) -> bytes:
    """The bytes of a file, unzipped if it is gzipped, whatever its name."""
    try:
        content = path.read_bytes()
        # zlib checks length and checksum as the gzip module does, in three quarters of the time
        return _unzipped(content) if content[:2] == b"\x1f\x8b" else content
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: expected a readable idx file, found: {error.strerror}; "
            "mend its permissions or replace it."
        ) from error
    except zlib.error as error:
        raise UserError(f"{path} is damaged: expected a whole gzip stream, found: {error}; {MEND}") from error


def _unzipped(content: bytes) -> bytes:
    """No more than LARGEST bytes, so that a small file cannot fill the memory."""
    stream = zlib.decompressobj(wbits=31)
    unzipped = stream.decompress(content, LARGEST + 1)
    if len(unzipped) > LARGEST:
        raise zlib.error(f"more than {LARGEST} bytes")
    if not stream.eof:
        raise zlib.error("incomplete or truncated stream")
    return unzipped
