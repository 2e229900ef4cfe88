"""Pictures whose pixels are whole and whose metadata is damaged in ways that cameras and editors leave behind."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from itertools import product
from typing import Any

import numpy as np
import pytest
from formats import listed
from numpy.typing import NDArray
from PIL import Image

from ssl_bench.data.readers.pictures import decode_all, limited, open_picture
from ssl_bench.encoders.embed import native

LEVELS = np.zeros((16, 24, 3), np.uint8)
LEVELS[:8, :12] = (250, 10, 60)  # the upper left corner
TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # of TIFF, and their bytes
UPRIGHT, TURNED = (16, 24), (24, 16)


def encoded(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(LEVELS).save(file, kind, **options)
    return file.getvalue()


JPEG, PNG = encoded("JPEG", quality=95), encoded("PNG")


def tiff(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Tags, types, counts and values of at most four bytes; longer ones stand behind them."""
    head, behind = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)), b""
    start = len(head) + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", start + len(behind))
        behind += value if len(value) > 4 else b""
        head += struct.pack("<HHI", tag, kind, count) + place
    return head + bytes(4) + behind


SIX = (0x0112, 3, 1, b"\6\0")


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    return (
        JPEG[:2] + b"".join(struct.pack(">BBH", 255, kind, len(body) + 2) + body for kind, body in segments) + JPEG[2:]
    )


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    return jpeg((0xE1, b"Exif\0\0" + tiff(*entries)))


def png(kind: bytes, body: bytes, *, behind: bool = False) -> bytes:
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    place = len(PNG) - 12 if behind else 33
    return PNG[:place] + chunk + PNG[place:]


def seen(content: bytes) -> NDArray[np.uint8]:
    """As embed sees it, [3, H, W]."""
    with limited(10**6):
        return native(open_picture(content)).numpy()


def shown(content: bytes) -> tuple[int, int]:
    """Height and width, after both readers agreed that the picture is all there, and turned alike."""
    found = decode_all(listed({"x": content}), side=8, skip=False, max_pixels=10**6)
    pixels = seen(content)
    assert tuple(found.sizes[0].tolist()) == pixels.shape[1:]
    corner = (slice(None), slice(4), slice(-4, None) if pixels.shape[1:] == TURNED else slice(4))
    assert (abs(pixels[corner].mean((1, 2)) - (250, 10, 60)) < 12).all()
    assert abs(pixels.mean((1, 2)) * 4 - (250, 10, 60)).max() < 12
    height, width = pixels.shape[1:]
    return height, width


def test_no_tag_of_any_type_hides_the_orientation_beside_it() -> None:
    tags = (0x0100, 0x010F, 0x011A, 0x011B, 0x0128, 0x0131, 0x013E, 0x0214, 0x8298, 0x8769, 0x8825, 0x9C9B, 0xC4A5)
    for tag, kind, count in product(tags, TYPES, (0, 1, 2, 3)):
        other = (tag, kind, count, (b"\1" + bytes(7)) * 3)
        content = exif(*sorted([SIX, (*other[:3], other[3][: TYPES[kind] * count])]))
        assert seen(content).shape[1:] == TURNED, other[:3]
    assert shown(content) == TURNED


ODD = {
    "a count beyond the file": (exif(SIX, (0x010F, 2, 2**31 - 1, b"\xff\xff\xff\x7f")), TURNED),
    "an orientation as text": (exif((0x0112, 2, 2, b"6\0")), TURNED),
    "two orientations": (exif((0x0112, 3, 2, b"\6\0\6\0")), TURNED),
    "a rational orientation": (exif((0x0112, 5, 1, struct.pack("<II", 6, 1))), TURNED),
    "an orientation as a byte": (exif((0x0112, 1, 1, b"\6")), TURNED),
    "an orientation of 0 / 0": (exif((0x0112, 5, 1, bytes(8))), UPRIGHT),
    "orientation 9": (exif((0x0112, 3, 1, b"\x09\0")), UPRIGHT),
    "an empty orientation": (exif((0x0112, 2, 1, b"\0")), UPRIGHT),
    "EXIF that is none": (jpeg((0xE1, b"Exif\0\0This is no EXIF")), UPRIGHT),
    "half of EXIF": (jpeg((0xE1, b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01")), UPRIGHT),
    "EXIF twice begun": (jpeg((0xE1, b"Exif\0\0Exif\0\0" + tiff(SIX))), TURNED),
    "a malformed list of pictures": (jpeg((0xE2, b"MPF\0II*\0\x08\0\0\0\1\0")), UPRIGHT),
    "a PNG's EXIF": (png(b"eXIf", tiff(SIX)), TURNED),
    "a PNG's EXIF behind its pixels": (png(b"eXIf", tiff(SIX), behind=True), TURNED),
    "a PNG's EXIF that is none": (png(b"eXIf", b"b'Exif\\x00'"), UPRIGHT),
    "text without end": (png(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 21))), UPRIGHT),
    "a damaged colour profile": (png(b"iCCP", b"icc\0\0notzlib"), UPRIGHT),
    "a colour profile without end": (png(b"iCCP", b"icc\0\0" + zlib.compress(bytes(1 << 21))), UPRIGHT),
    "EXIF in hexadecimals that are none": (png(b"tEXt", b"Raw profile type exif\0\nexif\n  9\nzz"), UPRIGHT),
    "WebP with EXIF that is none": (encoded("WEBP", lossless=True, exif=b"garbage"), UPRIGHT),
}


@pytest.mark.parametrize("what", ODD)
def test_metadata_is_nobodys_reason_to_refuse_whole_pixels(what: str) -> None:
    content, expected = ODD[what]
    assert shown(content) == expected


def test_pillows_own_warnings_name_no_picture_and_are_not_shown() -> None:
    noisy = jpeg((0xE1, b"Exif\0\0" + tiff((0x0100, 3, 2, b"\1\0\1\0"), SIX)), (0xE2, b"MPF\0II*\0\x08\0\0\0\1\0"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode_all(listed({"x": noisy}), side=8, skip=False, max_pixels=10**6)
    assert not caught
    with pytest.warns(UserWarning, match="MPO|EXIF"):  # so that there is something to be quiet about
        native(open_picture(noisy))
