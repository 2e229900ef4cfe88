"""Picture files (PNG, JPEG, WebP, BMP, GIF) → colour images of one size, one after another or all in memory.

Every picture becomes what a viewer shows: turned as its EXIF tag states, transparent parts over white, gray as equal
red, green and blue, of an animation the first frame. Colour profiles are not applied. It is squashed to S × S, with
antialiasing; the height and width that it had are kept beside it, so that views can undo this.
"""

from __future__ import annotations

import errno
import itertools
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin
from rich.filesize import decimal
from torch import Tensor

from ssl_bench.data.images import HASH_BYTES, Images, hash_of
from ssl_bench.errors import UserError
from ssl_bench.machine import memory

I = TypeVar("I")  # noqa: E741 (an item)
R = TypeVar("R")  # a result
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
OF_THE_FILE = (errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM)
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ADVICE = (
    "mend or remove it, leave such pictures out by dataset.on_error=skip, or allow large ones by dataset.max_pixels"
)


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The pictures below a folder, sorted by name."""

    root: Path
    names: list[str]
    labels: Tensor  # int64 [M], -1 where there is no class
    content: Callable[[str], bytes] | None = None  # the bytes of a name; None: of the file below root
    notes: tuple[str, ...] = ()  # what is shown to a user about the folder, in sentences

    def rows(self, index: Tensor) -> Listing:
        return replace(self, names=[self.names[row] for row in index.tolist()], labels=self.labels[index])

    def read(self, name: str) -> bytes:
        """The bytes of a picture, from any thread."""
        return self.content(name) if self.content else (self.root / name).read_bytes()


class Picture(NamedTuple):
    """A picture as it is kept."""

    pixels: NDArray[np.uint8]  # [3, S, S], contiguous
    size: tuple[int, int]  # height and width before it was squashed
    hash: bytes  # of the pixels


TEXT = 1 << 26  # bytes of text or a colour profile that a PNG may hold; Pillow itself allows a sixty-fourth
LARGE = 1 << 24  # pixels that all threads together decode, but for one larger picture at a time: 16 bytes each or so
TURN = 8  # pictures at most that a thread decodes before it hands them on
AHEAD = 2  # turns per thread that are begun before they are asked for
BLOCKS = 1 << 27  # bytes of all turns together, but for one picture each
STRIP = 256  # rows of a picture that are laid over white at a time


def decoded(
    pictures: Sequence[tuple[Listing, str]], *, side: int, max_pixels: int, threads: int
) -> Generator[Picture | str, None, None]:
    """The pictures in their order, or what is wrong with one; close it to stop early.

    pictures: a listing and a name in it, for each. The others are those of ``decode_all``. However many there are, a
    few per thread are in memory.
    """
    turn = large_ones_alone(threads)

    def one(listing: Listing, name: str) -> Picture | str:
        try:
            image, size = squashed(listing.read(name), side, turn)
            pixels = np.empty((3, side, side), np.uint8)
            for plane, band in zip(pixels, image.split(), strict=True):
                plane[:] = np.asarray(band)
            return Picture(pixels, size, hash_of(pixels))
        # Decoders stumble over damaged files anywhere, with errors of every kind.
        except Exception as error:
            return fault(str(listing.root / name), error, max_pixels)

    ahead = AHEAD * threads
    count = max(1, min(TURN, BLOCKS // ((ahead + 1) * 3 * side * side)))
    turns = (pictures[first : first + count] for first in range(0, len(pictures), count))
    with (
        limited(max_pixels),
        closing(on_threads(lambda turn: list(itertools.starmap(one, turn)), turns, threads, ahead)) as found,
    ):
        yield from itertools.chain.from_iterable(found)


def on_threads(work: Callable[[I], R], items: Iterable[I], threads: int, ahead: int) -> Generator[R, None, None]:
    """``work`` of each item, in their order; so many are begun ahead of the one asked for. Close it to stop early."""
    underway = deque[Future[R]]()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                underway.append(pool.submit(work, item))
                if len(underway) > ahead:
                    yield underway.popleft().result()
            while underway:
                yield underway.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def large_ones_alone(threads: int) -> Callable[[int], AbstractContextManager[object]]:
    """Given a picture's pixels: within what it is to be decoded, so that one of ``threads`` at a time is large."""
    alone = threading.Lock()
    return lambda pixels: alone if pixels > LARGE // threads else nullcontext()


@contextmanager
def limited(max_pixels: int) -> Iterator[None]:
    """Let PIL refuse a picture with more pixels before it is decoded, and keep to itself what it warns of others."""
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = max_pixels, TEXT
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # which name no picture
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = before


def fault(name: str, error: Exception, max_pixels: int) -> str:
    """What is wrong with the picture ``name``, whose reading ended with ``error``.

    Raises:
        UserError: nothing is known to be wrong with it, for the machine failed.
    """
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it has more than {max_pixels} pixels"
    reason = " ".join(str(error).split()).partition(" <_io")[0] or type(error).__name__
    # PIL's own complaints have no errno.
    of_the_file = not isinstance(error, OSError) or error.errno in (None, *OF_THE_FILE)
    if isinstance(error, MemoryError) or not of_the_file:
        raise UserError(
            f"{name} could not be read, for the machine failed ({reason}): the picture may be whole; mend the cause "
            "and run the same command again."
        ) from error
    return reason


def decode_all(listing: Listing, *, side: int, skip: bool, max_pixels: int, advice: str = ADVICE) -> Images:
    """The pictures of a listing, on as many threads as PyTorch uses.

    side: S. skip: leave out what cannot be read. max_pixels: a picture with more is not even decoded.

    Raises:
        UserError: they do not fit into memory; or, without ``skip``, a picture cannot be read.
    """
    names = listing.names
    needed = len(names) * 3 * side * side
    if needed > memory():
        raise UserError(
            f"{len(names):,} images of {side} × {side} pixels need {decimal(needed)} of memory, more than there "
            "is: choose a smaller dataset.stored, or fewer images."
        )
    images = torch.empty(len(names), 3, side, side, dtype=torch.uint8)
    sizes = torch.empty(len(names), 2, dtype=torch.int64)
    hashes = torch.empty(len(names), HASH_BYTES, dtype=torch.uint8)
    rows, kept, skipped = images.numpy(), list[int](), list[str]()
    pictures = [(listing, name) for name in names]
    with closing(decoded(pictures, side=side, max_pixels=max_pixels, threads=torch.get_num_threads())) as found:
        for number, picture in enumerate(found):
            if isinstance(picture, Picture):
                rows[len(kept)] = picture.pixels
                sizes[len(kept)] = torch.tensor(picture.size)
                hashes[len(kept)] = torch.tensor([*picture.hash], dtype=torch.uint8)
                kept.append(number)
            elif skip:
                skipped.append(names[number])
            else:
                raise broken(listing, names[number], picture, advice)
    m = len(kept)
    return Images(
        images[:m], listing.labels[kept], tuple(skipped), sizes[:m], hashes[:m], tuple(names[row] for row in kept)
    )


def broken(listing: Listing, name: str, reason: str, advice: str = ADVICE) -> UserError:
    """The error for a picture that ends the run."""
    return UserError(f"{listing.root / name} cannot be read as a picture: {reason}; {advice}.")


def squashed(
    content: bytes, side: int, turn: Callable[[int], AbstractContextManager[object]] = nullcontext
) -> tuple[Image.Image, tuple[int, int]]:
    """The picture in a file's bytes, of ``side`` × ``side`` pixels, and the height and width that it is shown with.

    A picture of so many pixels is decoded within ``turn(pixels)``. Raises what PIL raises, which may be anything.
    """
    with open_picture(content) as image, turn(image.width * image.height):
        width, height = image.size
        image.draft(None, (2 * side, 2 * side))  # a JPEG may be decoded smaller, yet twice as large as wanted
        if orientation(image) in SIDEWAYS:
            height, width = width, height
        colour = _opaque(upright(image))
        if colour.size != (side, side) and colour.mode == "RGBA":
            # Channel by channel: a copy of a large picture without its alpha would take as much as the picture.
            small = [colour.getchannel(band).resize((side, side), Image.Resampling.BILINEAR) for band in "RGB"]
            colour = Image.merge("RGB", small)
        elif colour.size != (side, side):
            colour = colour.resize((side, side), Image.Resampling.BILINEAR)
        colour = colour if colour.mode == "RGB" else colour.convert("RGB")
        colour.load()
        return colour, (height, width)


def open_picture(content: bytes) -> Image.Image:
    """The picture in a file's bytes, not decoded yet; raises what PIL raises."""
    return Image.open(BytesIO(content), formats=FORMATS)


def orientation(image: Image.Image) -> int:
    """How the camera was held, 1 to 8 as in EXIF; 1 where that cannot be read. The pixels must be readable."""
    image.load()  # errors in pixels are not to be lost below; and a PNG may hold the tag behind them
    with suppress(Exception):  # what could be read before something else stopped it is kept
        image.getexif()
    with suppress(Exception):
        value: Any = image.getexif().get(ExifTags.Base.Orientation)
        held = int(value[0] if isinstance(value, (tuple, bytes)) else value)
        return held if held in TURNS else 1
    return 1


def upright(image: Image.Image) -> Image.Image:
    """The image turned as a viewer shows it; the one it was is closed if it had to be turned."""
    turn = TURNS[orientation(image)]
    if turn is None:
        return image
    turned = image.transpose(turn)
    image.close()
    return turned


def in_colour(image: Image.Image) -> Image.Image:
    """As RGB, with transparent parts over white; the image is not kept as it was."""
    colour = _opaque(image)
    return colour if colour.mode == "RGB" else colour.convert("RGB")  # which copies


def _opaque(image: Image.Image) -> Image.Image:
    """As RGB, or as RGBA of which nothing is transparent any more."""
    if image.mode.startswith("I"):  # 16 bits of gray
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    wanted = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != wanted:
        converted = image.convert(wanted)
        image.close()  # two large ones are not needed at once
        image = converted
    if wanted == "RGB":
        return image
    for top in range(0, image.height, STRIP):
        box = (0, top, image.width, min(image.height, top + STRIP))
        strip = image.crop(box)
        image.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip), box)
    return image
