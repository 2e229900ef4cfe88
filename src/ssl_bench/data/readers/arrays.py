"""Pickles of plain data and byte arrays, read without the power to run code.

A pickle is a program: it may name any function and call it. Here it can name the few things that NumPy's arrays of
unsigned bytes are written with, and gets stand-ins that only keep what they are given. NumPy's own would not do: they
trust the type, the shape and the flags that a pickle states.
"""

import math
import pickle
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _ByteType:
    """In place of ``numpy.dtype``."""

    def __init__(self, name: bytes | str, *_: object) -> None:
        if name not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of type {name!r} and not of unsigned bytes")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which a byte has none of."""


class _Array:
    """In place of ``numpy.ndarray``."""

    values: NDArray[np.uint8]

    def __init__(self, *_: object) -> None:
        """The arguments are those of an empty array; what it holds is its state."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_column, content = state
        self._fill(content, kind, shape, by_column is False)

    def _fill(self, content: object, kind: object, shape: Any, by_row: bool) -> None:
        sides = all(type(side) is int and side >= 0 for side in shape)
        if not (sides and type(kind) is _ByteType and by_row and isinstance(content, (bytes, bytearray))):
            raise pickle.UnpicklingError("an array that is not of plain bytes, row by row")
        if math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"an array of shape {shape} in {len(content)} bytes")
        self.values = np.frombuffer(content, np.uint8).reshape(shape)
        self.values.flags.writeable = False


def _reconstruct(kind: object, *_: object) -> _Array:
    """In place of ``numpy.core.multiarray._reconstruct``."""
    return _Array()


def _frombuffer(content: object, kind: object, shape: Any, order: object) -> _Array:
    """In place of ``numpy.core.numeric._frombuffer``, of pickles of protocol 5."""
    array = _Array()
    array._fill(content, kind, shape, order == "C")
    return array


def _encode(text: object, encoding: object) -> bytes:
    """In place of ``_codecs.encode``, by which Python 3 writes bytes so that Python 2 can read them."""
    if type(text) is not str or encoding != "latin1":
        raise pickle.UnpicklingError("bytes that are not written as Latin-1 text")
    return text.encode("latin-1")


KNOWN = {
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _ByteType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 2
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name}, which does not belong into a file of images")
        return KNOWN[module, name]


def read_pickle(content: bytes) -> dict[str, Any]:
    """The dict in a pickle of Python 2 or 3, its arrays as uint8 (read only), its texts as bytes or str.

    Raises:
        ValueError: it holds anything else, or is damaged.
    """
    try:
        found = _Unpickler(BytesIO(content), encoding="bytes").load()
        return {
            key.decode() if isinstance(key, bytes) else key: value.values if type(value) is _Array else value
            for key, value in found.items()
        }
    # A damaged or hostile pickle makes the machine stumble anywhere: over its stack, its memo, types, memory.
    except Exception as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
