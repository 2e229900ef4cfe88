"""Stages and projector layers beside the features."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from ssl_bench.evaluation.features import Features, Splits, Tunable
from ssl_bench.evaluation.layers import Layers, pooled, score_layers, widths
from ssl_bench.evaluation.score import Score
from ssl_bench.nn.backbone import build_backbone, stages
from ssl_bench.nn.heads import mlp, mlp_of


def test_layers_of_a_resnet_are_the_means_of_its_stages_and_its_projectors_layers() -> None:
    torch.manual_seed(0)
    network, width = build_backbone("resnet10", stem="imagenet", width=4, channels=3)
    projector = mlp(width, 6, 5, 3, output_norm=True)
    for norm in (module for module in projector.modules() if isinstance(module, nn.BatchNorm1d)):
        norm.running_mean = torch.randn(norm.num_features)
    layers = Layers(network, stages(network), projector)
    images = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        found, together = layers.outputs(images), layers(images)
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))  # type: ignore[operator]
        wanted = {"stem": x}
        for number in range(1, 5):
            x = wanted[f"layer{number}"] = getattr(network, f"layer{number}")(x)
        wanted = {name: value.mean((2, 3)) for name, value in wanted.items()}
        z = wanted["encoder"] = network(images)
        for number, (first, end) in enumerate(itertools.pairwise([0, 3, 6, 8]), 1):
            z = wanted[f"projector {number}"] = projector[first:end](z)
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
    assert torch.equal(together, torch.cat(list(found.values()), 1))
    assert widths(layers, images[:1]) == {name: value.shape[1] for name, value in wanted.items()}
    torch.testing.assert_close(found["layer4"], found["encoder"])


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("test_resnet", ["act1", "layer1", "layer2", "layer3", "layer4"]),
        ("test_vit", [f"blocks.{number}" for number in range(6)]),
        ("test_mambaout", [f"stages.{number}" for number in range(4)]),  # whose channels come last
    ],
)
def test_layers_of_timms_networks_are_those_that_timm_lists(model: str, names: list[str]) -> None:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    network, width = build_backbone(f"timm/{model}", stem="imagenet", width=64, channels=3)
    side = network.pretrained_cfg["input_size"][-1]  # type: ignore[index]
    of = widths(Layers(network, stages(network), None), torch.zeros(1, 3, side, side))
    assert list(of) == [*names, "encoder"]
    assert [of[name] for name in names] == [entry["num_chs"] for entry in network.feature_info]  # type: ignore[union-attr]
    assert of["encoder"] == width


def test_a_network_that_gives_several_maps_or_lists_nothing_has_no_stages() -> None:
    class Lists(nn.Module):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [images]

    inner = Lists()
    layers = Layers(nn.Sequential(nn.Flatten()), {"several": inner, "never run": nn.Identity()}, None)
    assert list(widths(layers, torch.zeros(1, 1, 2, 2))) == ["encoder"]
    inner(torch.zeros(1, 1, 2, 2))
    assert layers._seen == {}
    assert stages(nn.Flatten()) == {}


def test_maps_and_tokens_count_by_their_mean() -> None:
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean = maps.sum((2, 3)) / 20
    torch.testing.assert_close(pooled(maps, channels_last=False), mean)
    torch.testing.assert_close(pooled(maps.permute(0, 2, 3, 1), channels_last=True), mean)
    torch.testing.assert_close(pooled(maps.flatten(2).mT, channels_last=False), mean)
    assert torch.equal(pooled(mean, channels_last=False), mean)


@pytest.mark.parametrize(("count", "output_norm"), [(1, False), (2, False), (3, True)])
def test_a_projector_is_built_again_from_its_weights(count: int, output_norm: bool) -> None:
    torch.manual_seed(0)
    network = mlp(4, 6, 3, count, output_norm=output_norm)
    again = mlp_of(network.state_dict())
    assert str(again) == str(network)
    x = torch.randn(5, 4)
    assert torch.equal(again(x), network(x))
    with pytest.raises(ValueError, match="no linear layers"):
        mlp_of({"0.bias": torch.zeros(3)})


def test_columns_are_those_of_every_part_in_one_piece() -> None:
    x = torch.arange(24.0).view(4, 6)
    parts = [Features(x + n, torch.tensor([0, 1, -1, 1]), torch.arange(4)) for n in range(4)]
    cut = Splits(*parts, classes=2).columns(1, 3)
    for n, name in enumerate(("bank", "train", "validation", "test")):
        found = getattr(cut, name)
        assert torch.equal(found.x, (x + n)[[0, 1, 3], 1:3])
        assert found.x.is_contiguous()
        assert found.labels.tolist() == [0, 1, 1]


def test_the_network_behind_the_features_may_be_trained_further_and_that_of_no_other_layer() -> None:
    torch.manual_seed(0)
    network, _ = build_backbone("resnet10", stem="small", width=2, channels=1)
    layers = Layers(network, stages(network), None)
    parts = Features(torch.zeros(3, 62), torch.tensor([0, 1, 1]), torch.arange(3))
    seen: dict[str, nn.Module | None] = {}

    class Scoring:
        def features(self, backbone: nn.Module, device: torch.device) -> Splits:
            whole = Tunable(backbone, nn.Identity(), device, lambda index, size: [], lambda other: splits)
            splits = Splits(parts, parts, parts, parts, classes=2, network=whole)
            return splits

        def score(self, splits: Splits, names: list[str], on: str) -> dict[str, Score]:
            seen[names[0]] = splits.network.backbone if splits.network else None
            return {}

    of = widths(layers, torch.zeros(1, 1, 16, 16))
    for name in of:
        score_layers(Scoring(), layers, {name: of[name]}, [name], torch.device("cpu"))  # type: ignore[arg-type]
    assert seen == {name: network if name == "encoder" else None for name in of}
