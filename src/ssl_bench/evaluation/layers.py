"""The layers of a network under the protocols: every stage of its backbone, its features, its projector's layers.

Letters: N images, F width of the features, L layers, F_l width of one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ssl_bench.evaluation.evaluator import Evaluator, Scores

FEATURES = "encoder"  # what the backbone gives, among the names of layers


class Layers(nn.Module):
    """What each layer makes of an image, side by side: images ``[N, C, H, W]`` → ``[N, ΣF_l]``, in one pass.

    Args:
        backbone: its output is the layer FEATURES.
        stages: modules of it by the names of their layers. A map of pixels or a row of tokens counts by its mean.
        projector: its layers, each with the norm and the activation behind it, are ``projector 1`` and so on.
    """

    def __init__(self, backbone: nn.Module, stages: Mapping[str, nn.Module], projector: nn.Sequential | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self._seen: dict[str, Tensor] = {}
        self._channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"  # as timm states it
        for name, stage in stages.items():
            stage.register_forward_hook(lambda _module, _images, output, name=name: self._see(name, output))
        self.eval()

    def _see(self, name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim > 1:
            self._seen[name] = pooled(output, channels_last=self._channels_last)

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """``[N, F_l]`` of every layer, from the first to the last."""
        x = self.backbone(images)
        found, self._seen = {**self._seen, FEATURES: x}, {}
        number = 0
        for module in self.projector or ():
            if isinstance(module, nn.Linear):
                number += 1
            x = found[f"projector {number}"] = module(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([output.float() for output in self.outputs(images).values()], dim=1)


def pooled(output: Tensor, *, channels_last: bool) -> Tensor:
    """``[N, F_l]``, the mean over pixels ``[N, F_l, H, W]`` (``[N, H, W, F_l]``) or over tokens ``[N, T, F_l]``."""
    if output.ndim == 4 and not channels_last:
        return output.mean((2, 3))
    return output.flatten(1, -2).mean(1) if output.ndim > 2 else output


@torch.no_grad()
def widths(layers: Layers, image: Tensor) -> dict[str, int]:
    """F_l of every layer by its name. image: one ``[1, C, H, W]`` of the network's size."""
    return {name: output.shape[1] for name, output in layers.outputs(image).items()}


def score_layers(
    evaluator: Evaluator, layers: Layers, of: Mapping[str, int], names: Iterable[str], device: torch.device
) -> dict[str, Scores]:
    """Protocols on test images by the name of the layer; every image passes the network once. of: the `widths`."""
    together = evaluator.features(layers.to(device), device)
    scores, first = {}, 0
    for name, width in of.items():
        # Of one layer by itself there is no network to train further, but of the features.
        alone = together.network if name == FEATURES else None
        columns = together.columns(first, first + width, alone and replace(alone, backbone=layers.backbone))
        scores[name] = evaluator.score(columns, names, "test")
        first += width
    return scores
