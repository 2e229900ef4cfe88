"""Picture files without what stands beside their pixels: text, profiles, thumbnails, comments of editors."""

import struct
import zlib
from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
PIXELS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")  # of PNG, beside the chunks that every reader must know (in capitals)
JPEG = b"\xff\xd8"
START_OF_SCAN = 0xDA
ADOBE = 0xEE  # how colours are coded
EXIF = 0xE1
JFIF, JFIF_BYTES = 0xE0, 16  # the least that it has
METADATA = (*range(0xE0, 0xF0), 0xFE)


def without_metadata(content: bytes) -> bytes:
    """A PNG's or JPEG's bytes with its pixels and its EXIF data alone; others as they are."""
    if content.startswith(PNG):
        return PNG + b"".join(_chunks(content))
    if content.startswith(JPEG):
        return JPEG + b"".join(_segments(content))
    return content


def _chunks(content: bytes) -> Iterator[bytes]:
    """Those that are kept of a PNG; what follows a chunk that is cut short is kept as it is."""
    place = len(PNG)
    while place + 12 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        chunk = content[place : place + 12 + size]
        whole = len(chunk) == 12 + size and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind[:1].isupper() or kind in PIXELS or (kind == b"eXIf" and whole):
            yield chunk
        place += 12 + size
    yield content[place:]


def _segments(content: bytes) -> Iterator[bytes]:
    """Those that are kept of a JPEG up to its pixels, and all that follows."""
    place = len(JPEG)
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != START_OF_SCAN:
        marker, size = struct.unpack_from(">xBH", content, place)
        segment = content[place : place + 2 + size]
        exif = marker == EXIF and segment[4:8] == b"Exif"
        if marker not in METADATA or marker == ADOBE or exif or (marker == JFIF and size >= JFIF_BYTES):
            yield segment
        place += 2 + size
    yield content[place:]
