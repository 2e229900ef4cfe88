"""Picture files (PNG, JPEG, WebP, BMP, GIF) → colour images of one size, in memory.

Every picture becomes what a viewer shows: turned as its EXIF tag says, transparent parts over white, gray as equal
red, green and blue, of an animation the first frame. Colour profiles are not applied. It is squashed to S × S, with
antialiasing: its aspect ratio is not kept.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ssl_bench.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
ADVICE = (
    "mend or remove it, leave such pictures out by dataset.on_error=skip, or allow large ones by dataset.max_pixels"
)


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """What could be read of a list of picture files."""

    images: Tensor  # u8 [M, 3, S, S]
    kept: Tensor  # int64 [M], positions in the list
    skipped: tuple[str, ...]  # names of those that could not be read


def decode_all(
    names: Sequence[str], read: Callable[[str], bytes], *, side: int, skip: bool, max_pixels: int, advice: str = ADVICE
) -> Pictures:
    """The pictures called ``names``, whose bytes ``read`` gives, on as many threads as PyTorch uses.

    side: S. skip: leave out what cannot be read. max_pixels: a picture with more is not even decoded.

    Raises:
        UserError: they do not fit into memory; or, without ``skip``, a picture cannot be read.
    """
    needed = len(names) * 3 * side * side
    if needed > _memory():
        raise UserError(
            f"{len(names):,} images of {side} × {side} pixels need {needed / 2**30:.1f} GiB of memory, more than there "
            "is: choose a smaller dataset.stored, or fewer images."
        )
    images = torch.empty(len(names), 3, side, side, dtype=torch.uint8)
    pixels = images.numpy().transpose(0, 2, 3, 1)  # the same memory, as pictures have it

    def one(number: int) -> str | None:
        try:
            pixels[number] = decode(read(names[number]), side)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return f"it has more than {max_pixels} pixels"
        # Decoders stumble over damaged files anywhere, with errors of every kind.
        except Exception as error:
            return " ".join(str(error).split()).partition(" <_io")[0] or type(error).__name__
        return None

    skipped: list[int] = []
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for number, wrong in enumerate(pool.map(one, range(len(names)))):
                if wrong and not skip:
                    pool.shutdown(cancel_futures=True)
                    raise UserError(f"{names[number]} cannot be read as a picture: {wrong}; {advice}.")
                if wrong:
                    skipped.append(number)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    kept = torch.tensor(sorted({*range(len(names))} - {*skipped}), dtype=torch.int64)
    return Pictures(images[kept] if skipped else images, kept, tuple(names[number] for number in skipped))


def decode(content: bytes, side: int) -> NDArray[np.uint8]:
    """The picture in a file's bytes, u8 ``[side, side, 3]``; raises what PIL raises, which may be anything."""
    with Image.open(BytesIO(content), formats=FORMATS) as image:
        image.draft(None, (2 * side, 2 * side))  # a JPEG may be decoded smaller, yet twice as large as wanted
        colour = _colour(ImageOps.exif_transpose(image))
        if colour.size != (side, side):
            colour = colour.resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(colour)


def _colour(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of gray
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows does not tell
        return 2**63
