from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torchvision
from torch import Tensor, nn

from forked import in_ranks
from ssl_bench.batch import Batch, Place
from ssl_bench.data.images import Images
from ssl_bench.data.loader import BatchLoader
from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import Features, Splits, extract, pixels


class Clean(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 255


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        self.layout = x.is_contiguous(memory_format=torch.channels_last)
        return self.layers(x).mean((2, 3))


def batches(sizes: list[int]) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    total = sum(sizes)
    images = torch.randint(256, (total, 3, 6, 6), dtype=torch.uint8, generator=generator)
    labels, index = torch.arange(total) % 4 - 1, torch.arange(total) + 100
    parts = zip(images.split(sizes), labels.split(sizes), index.split(sizes), strict=True)
    return [Batch(*part, place=Place(0, 0, 0, 0, len(part[0]))) for part in parts]


def get(network: nn.Module, loader: list[Batch]) -> Features:
    return extract(network, Clean(), loader, device="cpu")


def network() -> Network:
    torch.manual_seed(0)
    return Network()


def test_features_are_those_of_the_network_in_evaluation_mode() -> None:
    net = network()
    net.layers[1].running_mean.fill_(0.3)
    features = get(net, batches([5, 5, 2]))
    (whole,) = batches([12])
    assert net.layout
    assert torch.allclose(features.x, net.eval()(whole.images.float() / 255), atol=1e-6)
    assert features.x.dtype is torch.float32
    assert not features.x.requires_grad
    assert torch.equal(features.labels, whole.labels)
    assert torch.equal(features.index, whole.index)


def test_every_module_gets_its_own_mode_and_statistics_back() -> None:
    net = network().train()
    net.layers[1].eval()
    modes, state = [m.training for m in net.modules()], {k: v.clone() for k, v in net.state_dict().items()}
    get(net, batches([4]))
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_modes_come_back_after_an_error() -> None:
    class Broken(Network):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("broken")

    net = Broken().train()
    with pytest.raises(RuntimeError, match="broken"):
        get(net, batches([4]))
    assert all(module.training for module in net.modules())


def test_precision_is_float32_whatever_is_set_around() -> None:
    exact = get(network(), batches([8]))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(get(network(), batches([8])).x, exact.x)


def test_pixels_are_the_images_between_0_and_1() -> None:
    features = pixels(batches([3, 2]))
    (whole,) = batches([5])
    assert torch.equal((features.x * 255).round().to(torch.uint8).view(5, 3, 6, 6), whole.images)
    assert features.x.min() >= 0
    assert features.x.max() <= 1


@pytest.mark.parametrize("read", [pixels, lambda loader: get(network(), loader)])
def test_empty_loader_is_refused(read: object) -> None:
    with pytest.raises(UserError, match="no images"):
        read([])  # type: ignore[operator]


@pytest.mark.parametrize(("side", "kept"), [(32, 32), (48, 32), (16, 16)])
def test_raw_pixels_of_large_images_are_those_of_their_thumbnails(side: int, kept: int) -> None:
    images = torch.randint(256, (5, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    index = torch.arange(5)
    (batch,) = [Batch(images=images, labels=index, index=index, place=Place(0, 0, 0, 0, 5))]
    x = pixels([batch]).x.view(5, 3, kept, kept)
    plain = torch.stack(
        [torchvision.transforms.functional.resize(i, [kept, kept], antialias=True) for i in images.float()]
    )
    torch.testing.assert_close(x, plain / 255, atol=1e-5, rtol=0)


def test_diverged_network_is_refused() -> None:
    net = network()
    net.layers[0].weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="4 of 4 images"):
        get(net, batches([4]))


def test_feature_maps_are_refused() -> None:
    with pytest.raises(UserError, match="pooling"):
        get(nn.Identity(), batches([4]))


def test_unlabelled_images_do_not_enter_the_splits() -> None:
    features = pixels(batches([8]))
    splits = Splits(features, features, features, features, classes=3)
    for part in (splits.bank, splits.train, splits.validation, splits.test):
        assert part.labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert part.index.tolist() == [101, 102, 103, 105, 106, 107]
        assert torch.equal(part.x, features.x[features.labels >= 0])


def test_label_beyond_the_classes_is_refused() -> None:
    features = pixels(batches([8]))
    with pytest.raises(ValueError, match="train has label 2"):
        _ = Splits(features, features, features, features, classes=2).train


COUNTS = {"uneven last batch": 13, "fewer images than ranks": 2, "last batch for one rank": 9}


def loader_of(count: int, rank: int, world: int) -> BatchLoader:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (20, 3, 6, 6), dtype=torch.uint8, generator=generator)
    split = Images(images, torch.arange(20) % 4)
    index = torch.randperm(20, generator=generator)[:count]
    return BatchLoader(
        split, index, lambda epoch: torch.arange(count), batch_size=4, rank=rank, world=world, seed=0, drop_last=False
    )


def rank_program(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    found = {}
    for name, count in COUNTS.items():
        for read in (pixels, lambda loader: get(network(), loader)):
            features = read(loader_of(count, rank, world))  # type: ignore[no-untyped-call]
            found.setdefault(name, []).append((features.x, features.labels, features.index))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_every_rank_gets_the_features_of_all_images_once_and_in_order(tmp_path: Path) -> None:
    world = 3
    in_ranks(rank_program, world, str(tmp_path), world=world)
    for rank in range(world):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, count in COUNTS.items():
            whole = loader_of(count, 0, 1)
            for read, (x, labels, index) in zip((pixels, lambda w: get(network(), w)), found[name], strict=True):
                expected = read(whole)  # type: ignore[arg-type]
                torch.testing.assert_close(x, expected.x, msg=name)
                assert labels.tolist() == expected.labels.tolist()
                assert index.tolist() == expected.index.tolist() == whole.index.tolist()
