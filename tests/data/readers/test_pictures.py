from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from formats import listed
from numpy.typing import NDArray
from PIL import Image

from at_once import at_once
from ssl_bench.data.readers import pictures
from ssl_bench.data.readers.pictures import decode_all
from ssl_bench.errors import UserError

SIDE = 16
SMOOTH = np.stack([np.add.outer(a * np.arange(SIDE), b * np.arange(SIDE)) for a, b in ((9, 3), (2, 7), (5, 5))], -1)
COLOUR = SMOOTH.astype(np.uint8)  # [16, 16, 3]
GRAY = np.asarray(Image.fromarray(COLOUR).convert("L"))


def decode(content: bytes, side: int) -> NDArray[np.uint8]:
    """[side, side, 3], as a viewer shows it."""
    return (
        decode_all(listed({"x": content}), side=side, skip=False, max_pixels=10**9).images[0].permute(1, 2, 0).numpy()
    )


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    return encoded(Image.new("RGB", (width, height), (10, 200, 30)), kind)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_files_come_back_pixel_for_pixel(kind: str, options: dict[str, Any]) -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(COLOUR), kind, **options), SIDE), COLOUR)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_what_it_was_in_colour(mode: str) -> None:
    found = decode(encoded(Image.fromarray(COLOUR).convert(mode), "JPEG", quality=100, subsampling=0), SIDE)
    expected = COLOUR if mode != "L" else np.repeat(GRAY[..., None], 3, -1)
    assert np.abs(found.astype(int) - expected).max() <= 6


@pytest.mark.parametrize("mode", ["L", "1", "I;16"])
def test_gray_becomes_equal_red_green_and_blue(mode: str) -> None:
    if mode == "I;16":
        image, expected = Image.fromarray(GRAY.astype(np.uint16) * 256 + 255 - GRAY), GRAY
    elif mode == "1":
        image, expected = Image.fromarray(GRAY > 70), np.where(GRAY > 70, 255, 0)
    else:
        image, expected = Image.fromarray(GRAY), GRAY
    found = decode(encoded(image, "PNG"), SIDE)
    assert np.array_equal(found, np.repeat(expected[..., None], 3, -1))


def test_palettes_and_gifs_become_colours() -> None:
    image = Image.fromarray(COLOUR).quantize(64)
    for kind in ("PNG", "GIF"):
        assert np.array_equal(decode(encoded(image, kind), SIDE), np.asarray(image.convert("RGB")))


def test_of_an_animation_the_first_frame_counts() -> None:
    first, second = Image.new("RGB", (SIDE, SIDE), "red"), Image.new("RGB", (SIDE, SIDE), "blue")
    for kind in ("GIF", "WEBP", "PNG"):
        content = encoded(
            first, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert decode(content, SIDE)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "RGB", "GIF"])
def test_what_is_transparent_is_white(kind: str) -> None:
    alpha = np.full((SIDE, SIDE), 255, np.uint8)
    alpha[:, 8:] = 0
    image = Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8))
    options: dict[str, Any] = {}
    if kind in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(alpha))
        image = image.convert(kind)
    elif kind == "RGB":  # one colour is the transparent one
        image.paste((1, 2, 3), (8, 0, SIDE, SIDE))
        options["transparency"] = (1, 2, 3)
    else:
        image = Image.fromarray(np.where(alpha, 0, 1).astype(np.uint8), "L").convert("P")
        image.putpalette([0, 0, 0, 9, 9, 9])
        options["transparency"] = 1
    found = decode(encoded(image, "GIF" if kind == "GIF" else "PNG", **options), SIDE)
    assert (found[:, :8] == 0).all()
    assert (found[:, 8:] == 255).all()


@pytest.mark.parametrize("side", [16, 300])  # smaller, and as large
@pytest.mark.parametrize("strip", [1, 7, 300, 1000])
def test_a_picture_laid_over_white_in_strips_is_the_whole_laid_over_white(
    side: int, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "STRIP", strip)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 4), np.uint8), "RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    expected = np.asarray(whole.resize((side, side), Image.Resampling.BILINEAR) if side != 300 else whole)
    assert np.array_equal(decode(encoded(image, "PNG"), side), expected)


def test_half_transparent_is_half_white() -> None:
    image = Image.new("RGBA", (4, 4), (0, 100, 200, 128))
    expected = [round(0.498 * 255), round(0.502 * 100 + 0.498 * 255), round(0.502 * 200 + 0.498 * 255)]
    assert np.abs(decode(encoded(image, "PNG"), 4)[0, 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_held_sideways_is_turned_back(orientation: int) -> None:
    stored = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: np.rot90(COLOUR, 1),
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOUR, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(decode(content, SIDE), COLOUR)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 50), (20_000, 3), (31, 17), (640, 480)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_size_is_squashed_to_a_square(width: int, height: int, kind: str) -> None:
    found = decode(picture(width, height, kind), 16)
    assert found.shape == (16, 16, 3)
    assert np.abs(found.astype(int) - [10, 200, 30]).max() <= 3


def test_squashing_averages_over_what_a_pixel_covers() -> None:
    stripes = np.zeros((160, 160, 3), np.uint8)
    stripes[:, ::2] = 255
    for kind in ("PNG", "JPEG"):
        found = decode(encoded(Image.fromarray(stripes), kind, **({"quality": 100} if kind == "JPEG" else {})), 16)
        assert np.abs(found.astype(int) - 127).max() <= 12


def broken() -> dict[str, bytes]:
    jpeg, png = picture(64, 64, "JPEG"), picture(64, 64)
    wide = png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:29]
    return {
        "empty": b"",
        "text": b"<html>not found</html>",
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "half a PNG": png[: len(png) // 2],
        "a changed PNG": png[:50] + bytes([png[50] ^ 255]) + png[51:],
        "a bomb": wide + struct.pack(">I", zlib.crc32(wide[12:])) + png[33:],
        "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "another format": b"P5 2 2 255\n" + bytes(4),
    }


@pytest.mark.parametrize("what", sorted(broken()))
def test_a_broken_picture_is_named_or_left_out(what: str) -> None:
    content = {"a.png": picture(8, 8), "b.png": broken()[what], "c.png": picture(5, 9)}
    with pytest.raises(UserError) as caught:
        decode_all(listed(content), side=8, skip=False, max_pixels=10**8)
    assert str(caught.value).startswith("b.png cannot be read as a picture: ")
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)
    assert ("more than 100000000 pixels" in str(caught.value)) == (what == "a bomb")
    found = decode_all(listed(content), side=8, skip=True, max_pixels=10**8)
    assert found.skipped == ("b.png",)
    assert found.names == ("a.png", "c.png")
    assert found.images.shape == (2, 3, 8, 8)
    assert found.images[:, :, 4, 4].tolist() == [[10, 200, 30]] * 2


@pytest.mark.parametrize("excess", [1, 2, 5])
def test_the_limit_of_pixels_holds_exactly_and_is_put_back(excess: int) -> None:
    before = Image.MAX_IMAGE_PIXELS
    content = {"a.png": picture(100, 10), "b.png": picture(100 * excess, 10)}
    found = decode_all(listed(content), side=8, skip=True, max_pixels=1000)
    assert found.skipped == (() if excess == 1 else ("b.png",))
    assert before == Image.MAX_IMAGE_PIXELS


def test_more_pictures_than_memory_are_refused_before_one_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "memory", lambda: 1000)
    with pytest.raises(UserError, match=r"2 images of 64 × 64 pixels need 24.6 kB of .* smaller dataset\.stored"):
        decode_all(listed({"a": b"", "b": b""}), side=64, skip=True, max_pixels=10**8)


def test_several_threads_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {f"{number}.png": encoded(Image.new("L", (9, 9), number), "PNG") for number in range(200)}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    found = decode_all(listed(content), side=9, skip=False, max_pixels=100)
    assert found.images[:, 0, 0, 0].tolist() == list(range(200))
    assert found.images.is_contiguous()


def test_many_threads_take_no_more_memory_for_what_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BLOCKS", 100_000)
    read: list[str] = []
    listing = listed({str(number): picture(20, 20) for number in range(200)})
    reading = replace(listing, content=lambda name: read.append(name) or listing.read(name))  # type: ignore[func-returns-value]
    found = pictures.decoded([(reading, name) for name in listing.names], side=20, max_pixels=1000, threads=16)
    assert isinstance(next(found), pictures.Picture)
    found.close()
    assert 1 <= len(read) * 3 * 20 * 20 <= 100_000


@pytest.mark.parametrize(("threads", "most"), [(2, 2), (4, 1)])
def test_all_threads_together_decode_no_more_than_one_large_picture(
    threads: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "LARGE", 100)
    seen: list[int] = []
    monkeypatch.setattr(pictures, "_opaque", at_once(pictures._opaque, seen))
    content = encoded(Image.new("RGB", (6, 6)), "PNG")  # 36 pixels
    listing = listed({str(number): content for number in range(80)})
    items = [(listing, name) for name in listing.names]
    assert len(list(pictures.decoded(items, side=4, max_pixels=10**6, threads=threads))) == 80
    assert max(seen) == most
