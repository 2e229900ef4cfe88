"""Where a network looks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ssl_bench.errors import UserError
from ssl_bench.evaluation.saliency import Saliency
from ssl_bench.nn.backbone import build_backbone


def test_a_place_counts_by_its_part_in_the_feature() -> None:
    backbone: Any
    backbone, width = build_backbone("resnet10", stem="cifar", width=8, channels=3)
    images = torch.rand(5, 3, 32, 32)
    seen: list[torch.Tensor] = []
    backbone.layer4.register_forward_hook(lambda _module, _images, output: seen.append(output))
    shares = Saliency(backbone.eval(), backbone.layer4)(images)
    (places,) = seen
    assert places.shape == (5, width, 4, 4)
    for shown, of_image in zip(shares, places.detach(), strict=True):
        feature = of_image.mean((1, 2))
        parts = torch.stack([of_image[:, y, x] @ feature for y in range(4) for x in range(4)])
        torch.testing.assert_close(shown, parts / parts.sum())


def test_an_empty_map_is_shared_evenly() -> None:
    backbone: Any
    backbone, _ = build_backbone("resnet10", stem="small", width=4, channels=1)
    nn.init.zeros_(backbone.conv1.weight)
    shares = Saliency(backbone.eval(), backbone.layer4)(torch.rand(2, 1, 32, 32))
    torch.testing.assert_close(shares, torch.full((2, 4), 0.25))


@pytest.mark.parametrize("network", [nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Linear(12, 4))])
def test_a_network_without_a_map_is_refused(network: nn.Module) -> None:
    with pytest.raises(UserError, match="ends in a map of pixels"):
        Saliency(network, network)(torch.rand(2, 3, 2, 2))
