"""Image operations on whole batches, every image with its own parameters.

Each function equals torchvision's float-tensor path (``torchvision.transforms.v2.functional`` on
[0, 1] images, antialiased) at the same parameters, up to float32 rounding: tests/augment/test_ops.py.
They are written for the speed of plain eager tensors: on a CPU, products of small matrices and
min/max/abs are an order of magnitude faster than comparisons, ``where`` and gathers.

As in torch, a name that ends in ``_`` writes into its first argument; fresh memory costs more than
arithmetic. Parameters are on the images' device. On an accelerator nothing waits for their values: all shapes
are fixed, and constants are made there or kept there.

Shapes: n images, C channels (1 or 3), H × W pixels, S × S pixels of a view. Images are float in
[0, 1] unless stated otherwise; a ``mask`` is bool ``[n]``, and images outside it stay as they are.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # torchvision's numbering of ColorJitter's operations
LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, rounded as torchvision rounds it


def resized_crop(
    images: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None, *, cut_first: bool = True
) -> Tensor:
    """Cut a box out of each image, resize it (bilinear, antialiased), mirror it where ``flip`` is true.

    A bilinear resize is separable and linear: one small matrix per axis, whose row holds the weights
    of the source pixels in one target pixel. Cropping zeroes columns of it, mirroring reverses its rows.
    A pixel that a box covers in part counts by that part.

    Args:
        images: uint8 or float [n, C, H, W]; uint8 counts as multiples of 1/255.
        boxes: int [n, 4], (top, left, height, width) inside the image, at least 1 × 1; or float [n, 4]
            with edges anywhere between pixels, larger than 0 × 0.
        flip: bool [n].
        cut_first: no pixel beyond the box is seen, as when the box is cut out and then resized; otherwise
            those near its edges are, as when the image is resized and then cut.

    Returns:
        Float in [0, 1], ``[n, C, size, size]``.
    """
    height, width = images.shape[-2:]
    top, left, box_height, box_width = boxes.unbind(1)
    rows = _resize_weights(top, box_height, height, size, None, cut_first)  # [n, S, H]
    columns = _resize_weights(left, box_width, width, size, flip, cut_first)  # [n, S, W]
    if images.dtype == torch.uint8:
        rows /= 255
    return _transform_axes(images.float(), rows, columns)


def _resize_weights(
    start: Tensor, length: Tensor, source: int, size: int, flip: Tensor | None, cut_first: bool
) -> Tensor:
    """Weights of ``source`` pixels in ``size`` resized ones, ``[n, size, source]``; rows sum to 1.

    A target pixel sees the source through a tent, one source pixel wide or, when shrinking, one
    target pixel wide. Distances are measured in that unit, so that the tent is 1 - |distance|.
    """
    scale = length / size
    unit = scale.clamp(min=1)[:, None]
    target = torch.arange(size, device=start.device) + 0.5
    if flip is not None:
        target = torch.where(flip[:, None], size - target, target)  # [n, size]
    center = target * scale[:, None] / unit  # [n, size]
    position = torch.arange(source, device=start.device) - start[:, None] + 0.5  # [n, source], from the box's edge
    covered = torch.minimum(position + 0.5, length[:, None]) - (position - 0.5).clamp(min=0)  # part of each pixel
    position = position / unit
    if cut_first:
        position.masked_fill_(covered <= 0, torch.inf)
    weights = (position[:, None] - center[:, :, None]).abs_().neg_().add_(1).clamp_(min=0)
    if cut_first and length.is_floating_point():  # else a pixel is covered or not
        weights *= covered.clamp_(min=0)[:, None]
    return weights.div_(weights.sum(-1, keepdim=True))


def _transform_axes(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows @ image @ columns.T`` for each image; [n, C, H, W], [n, S, H], [n, S, W] → [n, C, S, S]."""
    n, channels, height, width = images.shape
    wide = torch.bmm(images.reshape(n, channels * height, width), columns.transpose(1, 2))
    return rows[:, None] @ wide.view(n, channels, height, -1)


def adjust_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue of each image by ``shifts`` [n] in [-0.5, 0.5] of the colour circle; C = 1 does not change.

    The same function as going through HSV, without its divisions and branches. Let ``high`` and ``low``
    be the largest and smallest channel and ``chroma`` their difference: a turn keeps all three. On the
    hexagon of hues (6 sides, red at 0, green at 2, blue at 4), multiplied by chroma throughout:

    - ``p = 2R - G - B`` falls from 2 to 1, -1 and -2 while the hue moves from red by 1, 2 and 3 sides,
      so the distance from red is ``1.5 - p + clamp(p, -1, 1) / 2``, and the sign of G - B is the direction;
    - a channel at distance d from its own corner has the value ``low + clamp(2 - d, 0, 1)``.
    """
    if images.shape[1] == 1:
        return images.clone()
    red, green, blue = images.tensor_split(3, dim=1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    p = (2 * red).sub_(green).sub_(blue)
    distance = torch.clamp(p, -chroma, chroma).mul_(0.5).sub_(p).add_(chroma, alpha=1.5)
    hue = torch.copysign(distance, green - blue)  # [n, 1, H, W] in [-3, 3] × chroma

    corners = torch.arange(0.0, 6.0, 2.0, device=shifts.device)
    turn = torch.remainder(6 * shifts[:, None] - corners + 3, 6) - 3  # from each channel's corner, in [-3, 3)
    hue = torch.addcmul(hue, _column(turn, images), chroma)  # [n, 3, H, W] in [-6, 6] × chroma
    # |3 - |hue|| is 3 - d there, so this is low + 2 - d before clamping.
    return hue.abs_().sub_(3 * chroma).abs_().add_(low - chroma).clamp_(low, high)


def color_jitter_(images: Tensor, factors: Tensor, order: Tensor, mask: Tensor) -> Tensor:
    """The four adjustments, in each image's own order.

    Args:
        factors: [n, 4], for (brightness, contrast, saturation, hue), as the adjust functions take them.
        order: int64 [n, 4], each row a permutation of (0, 1, 2, 3).
    """
    hue_turn = (order == HUE).int().argmax(1)
    turns = torch.arange(3, device=order.device)
    blends = torch.where(turns < hue_turn[:, None], order[:, :3], order[:, 1:])  # [n, 3], the other operations
    blend_factors = torch.where(mask[:, None], factors.gather(1, blends), 1.0)  # a blend by 1 is the image
    for turn in range(4):
        _edit_(images, mask & (hue_turn == turn), adjust_hue, factors[:, HUE])
        if turn < 3:
            _adjust_one_of_three_(images, blends[:, turn], blend_factors[:, turn])
    return images


def _adjust_one_of_three_(images: Tensor, operation: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast or saturation, by ``operation`` [n]: ``factor · image + (1 - factor) · other``, in [0, 1].

    The other image is black, the mean gray or the gray; ``factors`` [n] ≥ 0. One blend of all images is cheaper than
    picking out three subsets, and gray images (C = 1) do not change in saturation.
    """
    luma = _luma(images)
    saturates = _column(operation == SATURATION, images)
    contrasts = _column(operation == CONTRAST, images)
    other = luma * saturates + _mean(luma) * contrasts
    return torch.lerp(other, images, _column(factors, images), out=images).clamp_(0, 1)


def grayscale_(images: Tensor, mask: Tensor) -> Tensor:
    """Take the colour away and keep the channels; gray images (C = 1) do not change."""
    return _edit_(images, mask, lambda chosen: _luma(chosen).expand_as(chosen))


def gaussian_blur_(images: Tensor, sigma: Tensor, mask: Tensor, kernel_size: int) -> Tensor:
    """Blur with a Gaussian of standard deviation ``sigma`` [n] pixels, cut to ``kernel_size`` (odd) and normalised.

    The border is mirrored without repeating the edge pixel, so images are larger than ``kernel_size // 2``.
    Each axis is one matrix product per image, as in ``resized_crop``.
    """

    def blur(chosen: Tensor, sigma: Tensor) -> Tensor:
        height, width = chosen.shape[-2:]
        distance = torch.arange(kernel_size, device=chosen.device) - kernel_size // 2
        kernel = torch.softmax(-0.5 * (distance / sigma[:, None]).square(), dim=1)  # [n, K]
        rows, columns = (kernel @ _mirrored_shifts(kernel_size, side, chosen.device) for side in (height, width))
        return _transform_axes(chosen, rows.view(-1, height, height), columns.view(-1, width, width))

    return _edit_(images, mask, blur, sigma)


@functools.lru_cache(maxsize=8)  # the same few matrices serve the whole run
def _mirrored_shifts(kernel_size: int, side: int, device: torch.device) -> Tensor:
    """One side × side matrix per pixel of the kernel, flattened, that moves an axis by it; [K, side²] of 0 and 1."""
    source = torch.arange(side) + torch.arange(kernel_size)[:, None] - kernel_size // 2  # [K, side]
    source = (side - 1) - ((side - 1) - source.abs()).abs()
    return torch.nn.functional.one_hot(source, side).flatten(1).to(device, torch.float32)


def solarize_(images: Tensor, threshold: float, mask: Tensor) -> Tensor:
    """Invert the values at or above ``threshold``.

    A value within rounding of the threshold may fall on its other side; it then differs from
    torchvision's by ``|1 - 2 threshold|``.
    """
    return _edit_(images, mask, lambda chosen: (chosen - (chosen >= threshold).float()).abs_())


def normalize(images: Tensor, mean: Tensor, std: Tensor, out: Tensor | None = None) -> Tensor:
    """``(images - mean) / std`` with one number per channel: mean and std [C, 1, 1]."""
    return torch.sub(images, mean, out=out).div_(std)


def _edit_(images: Tensor, mask: Tensor, operation: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """Put ``operation(images, *parameters)`` into the rows in ``mask``."""
    if images.device.type != "cpu":  # picking rows would wait until the host knows how many there are
        return images.copy_(torch.where(mask[:, None, None, None], operation(images, *parameters), images))
    rows = mask.nonzero().flatten()
    if len(rows) == 0:
        return images
    return images.index_copy_(
        0, rows, operation(images.index_select(0, rows), *(numbers[rows] for numbers in parameters))
    )


def _luma(images: Tensor) -> Tensor:
    """Grayscale, [n, 1, H, W]."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.tensor_split(3, dim=1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _mean(luma: Tensor) -> Tensor:
    """Mean over the pixels, [n, 1, 1, 1]. One axis at a time: the order of summation must not depend on n."""
    return luma.mean(-1, keepdim=True).mean(-2, keepdim=True)


def _column(numbers: Tensor, images: Tensor) -> Tensor:
    """Per-image numbers [n] or [n, C] shaped to multiply ``images``: [n, 1 or C, 1, 1]."""
    return numbers.to(images).reshape(len(images), -1, 1, 1)


def channel_column(numbers: Sequence[float]) -> Tensor:
    """Per-channel numbers shaped to multiply images: [C, 1, 1]."""
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1)
