"""The views of a batch: parameters from ``draws``, applied by ``ops`` or, on CUDA, by the kernels of ``fused``; and the
view that evaluation takes.

Shapes: n images of this rank, C channels (1 or 3), H × W pixels, S × S pixels of a view.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.augment import ops
from ssl_bench.augment.draws import COLUMNS, ViewGroup, ViewParameters, squash
from ssl_bench.batch import Batch, to_device
from ssl_bench.conditions import full_size_views, require_largest_first
from ssl_bench.errors import UserError


class Views(nn.Module):
    """uint8 images → normalised float views.

    An image's views are a function of its place in the run alone: the same on 1, 2 or 3 ranks, however many
    are drawn at a time, and whatever the other images are.

    Args:
        groups: in the order of the views; the largest views come first, because methods with
            crops of several sizes take them as targets.
        mean, std: of the dataset's channels, in [0, 1].
        chunk: images that are drawn at a time, to stay in the CPU's cache (about 256 at 32 px, 32 at
            96 px); an accelerator draws the whole batch at once.

    ``use_kernels`` is True until the kernels fail. Set it to False where CUDA is compared with the CPU: both then draw
    by the same operations and differ by rounding, where the kernels' views are within 2/255.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, groups: Sequence[ViewGroup], mean: Sequence[float], std: Sequence[float], chunk: int) -> None:
        super().__init__()
        self.groups = [group for group in groups if group.count]
        self.sizes = [group.size for group in self.groups for _ in range(group.count)]  # pixels of each view's side
        self.count = len(self.sizes)
        require_largest_first(self.sizes)
        self.full_size = full_size_views(self.sizes)  # views of the largest size; they are the first ones
        if chunk < 1:
            raise UserError(f"The augmentation's chunk is {chunk}; set it to at least 1 image.")
        self.chunk = chunk
        self.use_kernels = True
        self.register_buffer("mean", ops.channel_column(mean), persistent=False)
        self.register_buffer("std", ops.channel_column(std), persistent=False)

    @torch.no_grad()
    def forward(self, batch: Batch, draw: int = 0) -> list[Tensor]:
        """One ``[n, C, S, S]`` per view; ``draw`` counts how often the batch is drawn again.

        The views are float32; those of the kernels are in channels_last, and in the precision that a surrounding
        autocast gives to what a network takes.

        Raises:
            UserError: the images' channels are not those of ``mean`` and ``std``.
        """
        channels = batch.images.shape[1]
        if channels != len(self.mean):
            raise UserError(
                f"The images have {channels} channels but the mean has {len(self.mean)}; give one number per channel."
            )
        tables = to_device(self.tables(batch, draw), batch.images.device)  # [V, n, COLUMNS]
        squashed = batch.sizes is not None
        views: list[Tensor] = []
        for group in self.groups:
            alike = tables[len(views) : len(views) + group.count]
            views += self._by_kernels(batch.images, alike, group) or [
                self._draw(batch.images, ViewParameters(table, squashed), group) for table in alike
            ]
        return views

    def tables(self, batch: Batch, draw: int) -> Tensor:
        """The parameters of every view, on the host; float32 ``[V, n, COLUMNS]``."""
        height, width = batch.images.shape[2:]
        numbers = [
            batch.place.uniform(len(batch), ViewParameters.NUMBERS, draw=draw, stream=view)
            for view in range(self.count)
        ]
        tables: list[Tensor] = []
        for group in self.groups:
            uniforms = torch.cat(numbers[len(tables) : len(tables) + group.count])
            sizes = None if batch.sizes is None else batch.sizes.repeat(group.count, 1)
            table = ViewParameters.sample(uniforms, height, width, group, sizes).table
            tables += table.view(group.count, len(batch), COLUMNS)
        return torch.stack(tables)

    def _by_kernels(self, images: Tensor, tables: Tensor, group: ViewGroup) -> list[Tensor] | None:
        """The views of one group by the kernels of ``fused``; None where there are none, which is shown once."""
        if not self.use_kernels or not _has_kernels(images.device):
            return None
        autocast = torch.is_autocast_enabled(images.device.type)
        dtype = torch.get_autocast_dtype(images.device.type) if autocast else torch.float32
        try:
            from ssl_bench.augment import fused  # Triton is not on every machine

            return fused.draw(images, tables, group, self.mean, self.std, dtype)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self.use_kernels = False
            reason = str(error).strip().splitlines() or [""]  # above its last line Triton prints the kernel
            warnings.warn(
                "Views are drawn by plain PyTorch operations, which take many times as long as the Triton kernels: "
                f"these cannot be used here ({type(error).__name__}: {reason[-1].strip()}).",
                stacklevel=2,
            )
            return None

    def _draw(self, images: Tensor, parameters: ViewParameters, group: ViewGroup) -> Tensor:
        n, channels = images.shape[:2]
        view = torch.empty(n, channels, group.size, group.size, device=images.device)
        chunk = self.chunk if images.device.type == "cpu" else n
        with torch.autocast(images.device.type, enabled=False):
            for start, chosen in zip(range(0, n, chunk), parameters.split(chunk), strict=True):
                rows = slice(start, start + chunk)
                ops.normalize(augment(images[rows], chosen, group), self.mean, self.std, out=view[rows])
        return view


def _has_kernels(device: torch.device) -> bool:
    return device.type == "cuda"


def augment(images: Tensor, parameters: ViewParameters, group: ViewGroup) -> Tensor:
    """One view at given parameters: uint8 [n, C, H, W] → float in [0, 1] [n, C, S, S]."""
    images = ops.resized_crop(images, parameters.boxes, group.size, parameters.flip)
    ops.color_jitter_(images, parameters.factors, parameters.order, parameters.jitter)
    ops.grayscale_(images, parameters.grayscale)
    ops.gaussian_blur_(images, parameters.sigma, parameters.blur, group.blur_kernel)
    return ops.solarize_(images, group.solarize_threshold, parameters.solarize)


def in_graph() -> bool:
    """Whether torch.jit.trace, torch.export or torch.compile makes a graph of what is called."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


class CleanView(nn.Module):
    """Images as evaluation sees them: the shorter side resized to ``size / crop``, the centre cut out, normalised.

    Args:
        size: S, of the network's input.
        crop: share of the resized shorter side that is kept, in (0, 1]; 1 keeps all of it.
        mean, std: of the dataset's channels, in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, crop: float, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if size < 1:
            raise UserError(f"The clean view's size is {size}; set it to at least 1.")
        if not 0 < crop <= 1:
            raise UserError(f"The clean view's crop is {crop}; set it above 0 and at most 1.")
        self.size = size
        self.resized = round(size / crop)
        self.register_buffer("mean", ops.channel_column(mean), persistent=False)
        self.register_buffer("std", ops.channel_column(std), persistent=False)

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """uint8, or float in [0, 1], [n, C, H, W] → float32 [n, C, S, S]; uint8 gives the same as uint8 / 255.

        sizes: int64 [n, 2], height and width of originals that were squashed to H × W; the view is then theirs, with
        nothing squashed in it.
        """
        images = images / 255 if images.dtype == torch.uint8 else images.float()
        if sizes is None and in_graph():
            # Sides as data, by which nothing branches: the graph is then right for images of other sizes, too.
            sides = [torch.ones(side, dtype=torch.int64, device=images.device).sum() for side in images.shape[-2:]]
            stored = torch.stack(sides)[None]  # [1, 2]
            sizes = stored.expand(images.shape[0], 2)
        elif sizes is not None:
            stored = torch.tensor([images.shape[-2:]])
        if sizes is not None:
            boxes = to_device(self._boxes(sizes, stored), images.device)
            return ops.normalize(ops.resized_crop(images, boxes, self.size, cut_first=False), self.mean, self.std)
        height, width = images.shape[-2:]
        short = min(height, width)
        if short != self.resized:
            shape = [self.resized * height // short, self.resized * width // short]
            images = F.interpolate(images, shape, mode="bilinear", antialias=True)
        top, left = (round((side - self.size) / 2) for side in images.shape[-2:])
        return ops.normalize(images[..., top : top + self.size, left : left + self.size], self.mean, self.std)

    def _boxes(self, sizes: Tensor, stored: Tensor) -> Tensor:
        """What is cut out of originals of ``sizes`` [n, 2], squashed to ``stored`` [1, 2]; float32 [n, 4]."""
        resized = self.resized * sizes // sizes.amin(1, keepdim=True)  # as originals would be
        corner = ((resized - self.size).double() / 2).round()
        return squash(torch.cat([corner, torch.full_like(corner, self.size)], dim=1), resized, stored)
