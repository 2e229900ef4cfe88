"""Where a network looks: which places of an image its feature comes from.

Letters: N images, F width of the last stage, h × w its places.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_bench.errors import UserError


class Saliency(nn.Module):
    """Images ``[N, C, H, W]`` → the share of every place in their features, ``[N, h·w]``; shares of an image sum to 1.

    Place x of the last stage's map f has max(0, ⟨f(x), mean of f⟩): class activation mapping (Zhou et al. 2016), with
    the direction of the image's own feature in place of a class's weights, so that no classifier is needed. Where all
    places have 0, they share evenly. Raises UserError for a network whose last stage is no map of pixels.

    Args:
        backbone: the network.
        last: the module of it that gives the map.
    """

    def __init__(self, backbone: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self._map: object = None
        last.register_forward_hook(lambda _module, _images, output: setattr(self, "_map", output))

    def forward(self, images: Tensor) -> Tensor:
        self.backbone(images)
        seen, self._map = self._map, None
        if not isinstance(seen, Tensor) or seen.ndim != 4 or getattr(self.backbone, "output_fmt", "NCHW") != "NCHW":
            raise UserError("saliency needs a network that ends in a map of pixels, as ResNets do.")
        places = seen.float().flatten(2)  # [N, F, h·w]
        drawn = torch.einsum("nfp,nf->np", places, places.mean(2)).clamp_min(0)
        whole = drawn.sum(1, keepdim=True)
        return torch.where(whole > 0, drawn / whole, torch.full_like(drawn, 1 / drawn.shape[1]))
