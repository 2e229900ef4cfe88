"""Views by Triton kernels, for CUDA: from uint8 images and the table of parameters to the network's input.

The plain path of ``ops`` goes through memory several times per operation; here three kernels do all of them:

1. ``_crop`` cuts out, resizes and mirrors the images, jitters them up to the turn of contrast, and adds up the gray of
   each tile, because contrast blends with its mean.
2. ``_color`` continues from there to the end or, where an image is blurred, up to the blur.
3. ``_blur`` blurs these images and takes them to the end.

Between kernels, pixels are float16 in [0, 1], off by at most 0.06 / 255. Arithmetic is in float32, and sums are taken
in a fixed order, so that a view is the same every time.

Memory traffic of two views of 256 colour images stored at 256 × 256 pixels, drawn at 224 px in bfloat16, half of them
blurred: at most 50 MB of uint8, once per view; 154 MB of crops and 77 MB before the blur, written and read; 154 MB of
views. These 0.7 GB take 0.2 ms at the 3.35 TB/s of an H100; some 250 instructions for each of the 26 million pixels
take as long again, partly at the same time. How long the kernels take there has not been measured.

Letters: n images, V views, C channels (1 or 3), H × W pixels, S × S pixels of a view. A program draws one tile of one
view of one image, T × T pixels; those beyond S are not stored. T is at least 16, as products of matrices need it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssl_bench.augment import draws, ops
from ssl_bench.augment.draws import ViewGroup

BOX, FLIP, JITTER, FACTORS, ORDER = map(tl.constexpr, (draws.BOX, draws.FLIP, draws.JITTER, draws.FACTORS, draws.ORDER))
GRAYSCALE, BLUR, SIGMA, SOLARIZE, COLUMNS = map(
    tl.constexpr, (draws.GRAYSCALE, draws.BLUR, draws.SIGMA, draws.SOLARIZE, draws.COLUMNS)
)
CONTRAST, SATURATION, HUE = map(tl.constexpr, (ops.CONTRAST, ops.SATURATION, ops.HUE))
LUMA_RED, LUMA_GREEN, LUMA_BLUE = map(tl.constexpr, ops.LUMA)

TILE = 32  # T of all but the smallest views, a divisor of the usual sizes
WARPS = 4


def draw(
    images: Tensor, tables: Tensor, group: ViewGroup, mean: Tensor, std: Tensor, dtype: torch.dtype
) -> list[Tensor]:
    """Views that are drawn alike, one ``[n, C, S, S]`` of ``dtype`` in channels_last for each of V.

    Args:
        images: uint8 [n, C, H, W].
        tables: float32 [V, n, COLUMNS], the parameters of ``ViewParameters``.
        mean, std: float32, C numbers each.
    """
    (views, n, _), (_, channels, height, width), size = tables.shape, images.shape, group.size
    tile = max(16, min(TILE, triton.next_power_of_2(size)))
    across = -(-size // tile)
    shape = {"CHANNELS": channels, "SIZE": size, "TILE": tile, "ACROSS": across, "num_warps": WARPS}
    images, tables = images.contiguous(), tables.contiguous()
    crops = torch.empty(views, n, channels, size, size, dtype=torch.float16, device=images.device)
    gray = torch.empty(views, n, across**2, device=images.device)
    out = torch.empty(views, n, size, size, channels, dtype=dtype, device=images.device)
    finish = (tables, out, mean, std, group.solarize_threshold)
    grid = (views * n * across**2,)
    with torch.cuda.device_of(images):
        _crop[grid](images, tables, crops, gray, n, height, width, **shape)
        _color[grid](crops, gray, *finish, TILES=triton.next_power_of_2(across**2), BLURS=group.blur > 0, **shape)
        if group.blur:
            radius = group.blur_kernel // 2
            _blur[grid](crops, *finish, RADIUS=radius, WINDOW=triton.next_power_of_2(tile + 2 * radius), **shape)
    return [view.permute(0, 3, 1, 2) for view in out]


@triton.jit
def _crop(
    images, tables, crops, gray, n, height, width,
    CHANNELS: tl.constexpr, SIZE: tl.constexpr, TILE: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """Fill ``crops``, float16 [V, n, C, S, S], and ``gray``, float32 [V, n, tiles]: the sum over each tile."""
    drawn, rows, columns, pixels, inside = _tile(SIZE, TILE, ACROSS)
    table = tables + drawn * COLUMNS
    image = images + (drawn % n) * CHANNELS * height * width
    red, green, blue = _resized(image, table, rows, columns, height, width, CHANNELS, SIZE)
    contrast, _ = _turns(table)
    red, green, blue = _jitter(red, green, blue, table, 0, contrast, 0.0, CHANNELS)
    luma = tl.where(inside, _luma(red, green, blue, CHANNELS), 0.0)
    tl.store(gray + tl.program_id(0), tl.sum(tl.sum(luma, axis=1), axis=0))
    _store(red, green, blue, crops + drawn * CHANNELS * SIZE * SIZE + pixels, inside, CHANNELS, SIZE)


@triton.jit
def _color(
    crops, gray, tables, out, mean, std, threshold, TILES: tl.constexpr, BLURS: tl.constexpr,
    CHANNELS: tl.constexpr, SIZE: tl.constexpr, TILE: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """Crops → ``out`` [V, n, S, S, C], or, where they are blurred, → ``crops``. TILES: a power of two."""
    drawn, _, _, pixels, inside = _tile(SIZE, TILE, ACROSS)
    table = tables + drawn * COLUMNS
    crop = crops + drawn * CHANNELS * SIZE * SIZE + pixels
    red = tl.load(crop, mask=inside, other=0.0).to(tl.float32)
    green, blue = red, red
    if CHANNELS == 3:
        green = tl.load(crop + SIZE * SIZE, mask=inside, other=0.0).to(tl.float32)
        blue = tl.load(crop + 2 * SIZE * SIZE, mask=inside, other=0.0).to(tl.float32)
    tiles = tl.arange(0, TILES)
    total = tl.sum(tl.load(gray + drawn * ACROSS * ACROSS + tiles, mask=tiles < ACROSS * ACROSS, other=0.0), axis=0)
    contrast, end = _turns(table)
    red, green, blue = _jitter(red, green, blue, table, contrast, end, total / (SIZE * SIZE), CHANNELS)
    luma, grayscale = _luma(red, green, blue, CHANNELS), tl.load(table + GRAYSCALE) > 0
    red = tl.where(grayscale, luma, red)
    green = tl.where(grayscale, luma, green)
    blue = tl.where(grayscale, luma, blue)
    blurs = False
    if BLURS:
        blurs = tl.load(table + BLUR) > 0
    if blurs:
        _store(red, green, blue, crop, inside, CHANNELS, SIZE)
    else:
        place = out + (drawn * SIZE * SIZE + pixels) * CHANNELS
        _finish(red, 0, table, place, inside, mean, std, threshold)
        if CHANNELS == 3:
            _finish(green, 1, table, place, inside, mean, std, threshold)
            _finish(blue, 2, table, place, inside, mean, std, threshold)


@triton.jit
def _blur(
    crops, tables, out, mean, std, threshold, RADIUS: tl.constexpr, WINDOW: tl.constexpr,
    CHANNELS: tl.constexpr, SIZE: tl.constexpr, TILE: tl.constexpr, ACROSS: tl.constexpr,
):  # fmt: skip
    """Blurred crops → ``out``. WINDOW: pixels from RADIUS before the tile to RADIUS after it, up to a power of two."""
    drawn, rows, columns, pixels, inside = _tile(SIZE, TILE, ACROSS)
    table = tables + drawn * COLUMNS
    if tl.load(table + BLUR) > 0:
        window = tl.arange(0, WINDOW) - RADIUS
        step = window[:, None] - tl.arange(0, TILE)[None, :]
        distance = step / tl.load(table + SIGMA)
        kernel = tl.where(tl.abs(step) <= RADIUS, tl.exp(-0.5 * distance * distance), 0.0)  # [WINDOW, TILE]
        kernel = (kernel / tl.sum(kernel, axis=0)[None, :]).to(tl.float16)
        y, x = tl.min(rows, axis=0) + window, tl.min(columns, axis=0) + window
        exists = (y < SIZE + RADIUS)[:, None] & (x < SIZE + RADIUS)[None, :]
        seen = _mirrored(y, SIZE)[:, None] * SIZE + _mirrored(x, SIZE)[None, :]
        for channel in tl.static_range(CHANNELS):
            plane = crops + (drawn * CHANNELS + channel) * SIZE * SIZE
            wide = tl.dot(tl.load(plane + seen, mask=exists, other=0.0), kernel)  # [WINDOW, TILE]
            value = tl.dot(tl.trans(kernel), wide.to(tl.float16))
            place = out + (drawn * SIZE * SIZE + pixels) * CHANNELS
            _finish(value, channel, table, place, inside, mean, std, threshold)


@triton.jit
def _tile(SIZE: tl.constexpr, TILE: tl.constexpr, ACROSS: tl.constexpr):
    """Which of V · n images is drawn; rows [T], columns [T] and pixels [T, T] of the tile; which of these exist."""
    program = tl.program_id(0)
    tile = program % (ACROSS * ACROSS)
    rows = (tile // ACROSS) * TILE + tl.arange(0, TILE)
    columns = (tile % ACROSS) * TILE + tl.arange(0, TILE)
    inside = (rows < SIZE)[:, None] & (columns < SIZE)[None, :]
    pixels = rows[:, None] * SIZE + columns[None, :]
    return (program // (ACROSS * ACROSS)).to(tl.int64), rows, columns, pixels, inside


@triton.jit
def _resized(image, table, rows, columns, height, width, CHANNELS: tl.constexpr, SIZE: tl.constexpr):
    """A tile of the box, resized and mirrored as by ``ops.resized_crop``: red, green and blue in [0, 1]."""
    top, left = tl.load(table + BOX), tl.load(table + BOX + 1)
    tall, wide = tl.load(table + BOX + 2), tl.load(table + BOX + 3)
    mirrored = tl.where(tl.load(table + FLIP) > 0, SIZE - 1 - columns, columns)
    center_y, per_unit_y, first_y, taps_y = _tent(rows, top, tall, SIZE)
    center_x, per_unit_x, first_x, taps_x = _tent(mirrored, left, wide, SIZE)
    total_y, total_x = 0.0 * center_y, 0.0 * center_x
    for tap in range(taps_y):
        total_y += _weight(first_y + tap, center_y, per_unit_y, top, tall, height)
    for tap in range(taps_x):
        total_x += _weight(first_x + tap, center_x, per_unit_x, left, wide, width)
    share_y = 1.0 / tl.where(total_y > 0, total_y, 1.0)  # beyond the view there may be nothing to see
    share_x = 1.0 / (255 * tl.where(total_x > 0, total_x, 1.0))
    red = 0.0 * (center_y[:, None] + center_x[None, :])
    green, blue = red, red
    for tap_y in range(taps_y):
        y = first_y + tap_y
        weight_y = _weight(y, center_y, per_unit_y, top, tall, height) * share_y
        line = image + tl.minimum(tl.maximum(y, 0), height - 1) * width
        for tap_x in range(taps_x):
            x = first_x + tap_x
            weight_x = _weight(x, center_x, per_unit_x, left, wide, width) * share_x
            weight = weight_y[:, None] * weight_x[None, :]
            pixel = line[:, None] + tl.minimum(tl.maximum(x, 0), width - 1)[None, :]
            red += weight * tl.load(pixel).to(tl.float32)
            if CHANNELS == 3:
                green += weight * tl.load(pixel + height * width).to(tl.float32)
                blue += weight * tl.load(pixel + 2 * height * width).to(tl.float32)
    if CHANNELS == 1:
        green, blue = red, red
    return red, green, blue


@triton.jit
def _tent(target, start, length, SIZE: tl.constexpr):
    """Of target pixels: the tent's center from the box's edge, 1 / its half width, its first source pixel, how many."""
    scale = length / SIZE
    unit = tl.maximum(scale, 1.0)
    center = (target + 0.5) * scale
    first = tl.floor(center - unit + start - 0.5).to(tl.int32) + 1
    return center, 1.0 / unit, first, tl.ceil(2 * unit).to(tl.int32)


@triton.jit
def _weight(pixel, center, per_unit, start, length, side):
    """How much a source pixel counts: its height in the tent, times the part of it that the box covers."""
    position = pixel - start + 0.5
    covered = tl.minimum(position + 0.5, length) - tl.maximum(position - 0.5, 0.0)
    weight = tl.maximum(1.0 - tl.abs(position - center) * per_unit, 0.0) * tl.maximum(covered, 0.0)
    return tl.where((pixel >= 0) & (pixel < side), weight, 0.0)


@triton.jit
def _turns(table):
    """The turn in which contrast is adjusted, and the number of turns; both 0 for an image that is not jittered."""
    contrast = 0
    for turn in tl.static_range(4):
        contrast += tl.where(tl.load(table + ORDER + turn) == CONTRAST, turn, 0)
    jitters = tl.load(table + JITTER) > 0
    return tl.where(jitters, contrast, 0), tl.where(jitters, 4, 0)


@triton.jit
def _jitter(red, green, blue, table, first, end, mean, CHANNELS: tl.constexpr):
    """The adjustments from turn ``first`` to ``end`` of the image's order; mean: of its gray before contrast."""
    for turn in range(first, end):
        operation = tl.load(table + ORDER + turn).to(tl.int32)
        factor = tl.load(table + FACTORS + operation)
        if operation == HUE:
            red, green, blue = _turn_hue(red, green, blue, factor)
        else:
            luma = _luma(red, green, blue, CHANNELS)
            other = tl.where(operation == SATURATION, luma, tl.where(operation == CONTRAST, mean, 0.0))
            red, green, blue = _blend(other, red, factor), _blend(other, green, factor), _blend(other, blue, factor)
    return red, green, blue


@triton.jit
def _blend(other, value, factor):
    """``factor · value + (1 - factor) · other``, clamped to [0, 1]."""
    return tl.minimum(tl.maximum(other + factor * (value - other), 0.0), 1.0)


@triton.jit
def _turn_hue(red, green, blue, shift):
    """The hue turned by ``shift`` of the colour circle; ``ops.adjust_hue`` explains the arithmetic."""
    high = tl.maximum(tl.maximum(red, green), blue)
    low = tl.minimum(tl.minimum(red, green), blue)
    chroma = high - low
    p = 2 * red - green - blue
    distance = 1.5 * chroma - p + 0.5 * tl.minimum(tl.maximum(p, -chroma), chroma)
    hue = tl.where(green >= blue, distance, -distance)  # in [-3, 3] × chroma
    return (
        _corner(hue, chroma, low, high, 6 * shift),
        _corner(hue, chroma, low, high, 6 * shift - 2),
        _corner(hue, chroma, low, high, 6 * shift - 4),
    )


@triton.jit
def _corner(hue, chroma, low, high, turn):
    """A channel at the hue turned by ``turn`` sides from its own corner."""
    turn = turn + 3 - 6 * tl.floor((turn + 3) / 6) - 3  # in [-3, 3)
    value = tl.abs(tl.abs(hue + turn * chroma) - 3 * chroma) + low - chroma
    return tl.minimum(tl.maximum(value, low), high)


@triton.jit
def _luma(red, green, blue, CHANNELS: tl.constexpr):
    luma = red
    if CHANNELS == 3:
        luma = red * LUMA_RED + green * LUMA_GREEN + blue * LUMA_BLUE
    return luma


@triton.jit
def _mirrored(position, SIZE: tl.constexpr):
    """Positions beyond an edge, mirrored at it; the edge pixel is not repeated."""
    return (SIZE - 1) - tl.abs((SIZE - 1) - tl.abs(position))


@triton.jit
def _store(red, green, blue, crop, mask, CHANNELS: tl.constexpr, SIZE: tl.constexpr):
    tl.store(crop, red.to(tl.float16), mask=mask)
    if CHANNELS == 3:
        tl.store(crop + SIZE * SIZE, green.to(tl.float16), mask=mask)
        tl.store(crop + 2 * SIZE * SIZE, blue.to(tl.float16), mask=mask)


@triton.jit
def _finish(value, channel: tl.constexpr, table, place, mask, mean, std, threshold):
    """Solarise, normalise and store one channel of a tile."""
    threshold = tl.where(tl.load(table + SOLARIZE) > 0, threshold, 2.0)
    value = tl.where(value >= threshold, 1.0 - value, value)
    value = (value - tl.load(mean + channel).to(tl.float32)) / tl.load(std + channel).to(tl.float32)
    tl.store(place + channel, value.to(place.dtype.element_ty), mask=mask)
