"""Pictures of views: every pixel where it belongs, and what is drawn in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_bench.augment.draws import ViewGroup
from ssl_bench.report.contact_sheet import Row, contact_sheet, in_words

PLAIN = ViewGroup(
    count=1,
    size=32,
    crop_scale=(0.2, 1.0),
    crop_ratio=(0.75, 4 / 3),
    flip=0.0,
    jitter=0.0,
    brightness=0.4,
    contrast=0.0,
    saturation=0.4,
    hue=0.1,
    grayscale=0.0,
    blur=0.0,
    blur_sigma=(0.1, 2.0),
    solarize=0.0,
    solarize_threshold=0.5,
)


def test_words_name_what_acts_and_nothing_else() -> None:
    crop = "crop of 20–100 % of the area, width : height 0.75–1.33; "
    assert in_words(PLAIN, 3) == crop + "no flip; no colour jitter; no blur"
    acting = replace(PLAIN, flip=0.5, jitter=0.8, grayscale=0.2, blur=1.0, solarize=0.1, crop_scale=(0.075, 0.3))
    assert in_words(acting, 3) == (
        "crop of 7.5–30 % of the area, width : height 0.75–1.33; flip with p = 0.5; brightness ±40 %, "
        "saturation ±40 %, hue ±36° with p = 0.8; gray with p = 0.2; blur of 0.1–2 pixels always; "
        "solarised above 50 % with p = 0.1"
    )
    assert "saturation" not in in_words(acting, 1)
    assert "hue" not in in_words(acting, 1)
    assert "gray" not in in_words(acting, 1)
    assert in_words(replace(acting, brightness=0.0), 1).count("no colour jitter") == 1


def find(picture: np.ndarray, tile: np.ndarray) -> list[tuple[int, int]]:
    """Corners (y, x) at which ``tile`` stands in ``picture``."""
    height, width = tile.shape[:2]
    corners = np.argwhere((picture[: 1 - height, : 1 - width] == tile[0, 0]).all(-1))
    return [(y, x) for y, x in corners.tolist() if np.array_equal(picture[y : y + height, x : x + width], tile)]


def test_all_images_and_views_stand_in_rows_magnified_alike(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def view(side: int) -> np.ndarray:
        return random.integers(0, 256, (side, side, 3), np.uint8)

    rows = [
        Row(view(32), f"$\\frac{{$ 日本 {number}", [[view(32), view(16)], [view(32), view(16)]]) for number in (1, 2)
    ]
    # An image may be looked at less often than others.
    rows[0] = replace(rows[0], draws=rows[0].draws[:1])
    path = tmp_path / "picture.png"
    contact_sheet(path, rows, title="title", lines=["words " * 60])
    picture = np.asarray(Image.open(path).convert("RGB"))
    found = [
        [find(picture, one.repeat(3, 0).repeat(3, 1)) for one in (row.clean, *(v for draw in row.draws for v in draw))]
        for row in rows
    ]
    assert all(len(corners) == 1 for row in found for corners in row)
    first, second = ([corners[0] for corners in row] for row in found)
    assert [x for _, x in first] == [x for _, x in second[:3]]
    assert [x for _, x in second] == sorted({x for _, x in second})
    assert {y for y, _ in first} == {first[0][0], first[0][0] + 24}  # small views stand in the middle
    assert second[0][0] > first[0][0] + 96
