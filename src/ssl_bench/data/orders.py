"""Which image comes when: pure functions of (seed, epoch)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_bench.batch import generator
from ssl_bench.errors import UserError


def permutation(size: int, seed: int, epoch: int) -> Tensor:
    """Every position in [0, size) once, in the random order of this seed and epoch; int64 ``[size]``."""
    return torch.randperm(size, generator=generator("permutation", seed, epoch))


@dataclass(frozen=True)
class Window:
    """A window that slides over the images on a circle, so that an image is soon seen again (Cao et al. 2020, PIC).

    The circle is a random permutation that belongs to the seed. Pass k takes the images k·S to k·S + L on it, in an
    order of its own. So consecutive passes share L − S images, and an image is seen L/S times each time the window
    comes round. Passes follow each other as one stream without gaps, which epochs and batches cut wherever they end.
    """

    share: float  # (0, 1], length of the window as a share of the images
    strides: int  # the window advances by 1/strides of itself

    def sizes(self, size: int) -> tuple[int, int]:
        """Length L and stride S of the window on ``size`` images: at least one image further each time.

        Raises:
            UserError: the window would be longer than the circle.
        """
        stride = max(1, round(size * self.share / self.strides))
        if self.strides > size:
            raise UserError(
                f"order.strides={self.strides} needs a window of as many images, and there are {size}: choose at most "
                f"{size}, or more images."
            )
        return min(size, self.strides * stride), stride  # rounding may exceed a window of all images

    def positions(self, size: int, seed: int, length: int, epoch: int) -> Tensor:
        """Entries [epoch · length, (epoch + 1) · length) of the stream over [0, size); int64 ``[length]``."""
        window, stride = self.sizes(size)
        circle = torch.randperm(size, generator=generator("circle", seed))
        first, end = epoch * length, (epoch + 1) * length
        passes = []
        for number in range(first // window, -(-end // window)):
            shuffled = torch.randperm(window, generator=generator("window", seed, number))
            passes.append(circle[(number * stride + shuffled) % size])
        skipped = first - first // window * window
        return torch.cat(passes)[skipped : skipped + length]
