"""The emulated device itself: it computes as the CPU does, refuses what CUDA refuses and misses nothing that waits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from emulated import COPY, LAUNCH, READ, SHAPE, WAITING_COPY, Counts, counting, emulation
from ssl_bench import batch


@pytest.fixture(autouse=True)
def device() -> Iterator[torch.device]:
    with emulation() as found:
        yield found


def test_training_there_gives_the_bits_of_the_cpu(device: torch.device) -> None:
    def trained(on: torch.device) -> list[Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        network.to(on, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        images = torch.randn(6, 3, 8, 8).to(on, memory_format=torch.channels_last)
        for _ in range(3):
            optimizer.zero_grad()
            network(images).square().mean().backward()
            optimizer.step()
        return [value.cpu() for value in network.state_dict().values()]

    for there, here in zip(trained(device), trained(torch.device("cpu")), strict=True):
        assert torch.equal(there, here)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda there, here: there + here,
        lambda there, here: torch.isin(here.long(), there.long()),
        lambda there, here: torch.cat([there, here]),
        lambda there, here: there.index_select(0, here.long()),
        lambda there, here: here[there.long()],
        lambda there, here: torch.where(there > 0, there, here),
    ],
)
def test_mixing_devices_raises_as_on_cuda(device: torch.device, mixed: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        mixed(torch.zeros(3, device=device), torch.zeros(3))


def test_a_number_without_dimensions_may_come_from_the_cpu(device: torch.device) -> None:
    with counting() as counts:
        total = torch.ones(3, device=device) * torch.tensor(2.0)
    assert total.device == device
    assert not counts.of(COPY) + counts.of(WAITING_COPY)


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        (WAITING_COPY, lambda there: torch.zeros(3).to(there.device)),
        (WAITING_COPY, lambda there: there.copy_(torch.zeros(3))),
        (WAITING_COPY, lambda there: torch.tensor([1.0, 2.0], device=there.device)),
        (WAITING_COPY, lambda there: there[[0, 2]]),
        (WAITING_COPY, lambda there: there[torch.tensor([0, 2])]),
        (COPY, lambda there: torch.zeros(3).to(there.device, non_blocking=True)),
        (READ, lambda there: there.sum().item()),
        (READ, lambda there: bool((there > 0).any())),
        (READ, lambda there: there.cpu()),
        (READ, lambda there: there.tolist()),
        (READ, lambda there: torch.equal(there, there)),
        (READ, lambda there: torch.linalg.eigh(torch.eye(3, device=there.device))),
        (READ, lambda there: torch.linalg.solve(torch.eye(3, device=there.device), there)),
        (SHAPE, lambda there: there[there > 0]),
        (SHAPE, lambda there: there.nonzero()),
        (SHAPE, lambda there: there.unique()),
        (SHAPE, lambda there: there.long().bincount()),
        (SHAPE, lambda there: torch.repeat_interleave(there.long())),
        (SHAPE, lambda there: there.index_put_((there > 0,), there[:2].clone())),
    ],
)
def test_what_waits_is_counted(device: torch.device, kind: str, act: Callable[[Tensor], object]) -> None:
    there = torch.tensor([1.0, 0.0, 2.0]).to(device)
    with counting() as counts:
        act(there)
    assert {found for found, _ in counts} - {LAUNCH} == {kind}
    assert counts.of(kind) == 1


@pytest.mark.parametrize(
    "act",
    [
        lambda there: torch.arange(5, device=there.device),
        lambda there: there.masked_fill(there > 0, 0),
        lambda there: there.index_select(0, there.long()).sort(),
        lambda there: torch.repeat_interleave(there, 2, dim=0),
        lambda there: torch.linalg.inv_ex(torch.eye(3, device=there.device)),
    ],
)
def test_what_does_not_wait_is_a_launch_alone(device: torch.device, act: Callable[[Tensor], object]) -> None:
    there = torch.tensor([1.0, 0.0, 2.0]).to(device)
    with counting() as counts:
        act(there)
    assert {kind for kind, _ in counts} == {LAUNCH}


def test_what_is_made_there_has_its_shape(device: torch.device) -> None:
    for made in (
        torch.arange(5, device=device),
        torch.arange(2, 7, device=device),
        torch.arange(0, 10, 2, device=device),
    ):
        assert made.shape == (5,)
        assert len(made.tolist()) == 5


def test_shapes_that_change_in_place_do(device: torch.device) -> None:
    row, product = torch.zeros(1, 3, device=device), torch.ones(3, device=device) @ torch.ones(3, 2, device=device)
    assert row.squeeze_(0).shape == (3,)
    assert row.add_(1).unsqueeze_(1).tolist() == [[1], [1], [1]]
    assert product.tolist() == [3, 3]


def test_an_output_that_would_be_resized_is_refused(device: torch.device) -> None:
    with pytest.raises(NotImplementedError, match="resizes"):
        torch.add(torch.zeros(2, device=device), 1, out=torch.empty(0, device=device))


def test_views_launch_nothing(device: torch.device) -> None:
    there = torch.zeros(2, 3, device=device)
    with counting() as counts:
        there.view(6)[1:].unsqueeze(0).expand(4, 5)
        there[1].zero_()
    assert counts.of(LAUNCH) == 1


def test_a_count_names_the_line_of_the_package(device: torch.device) -> None:
    lines, first = inspect.getsourcelines(batch.to_device)
    with counting() as counts:
        batch.to_device(torch.zeros(3), device)
    ((_, place),) = counts
    file, line = place.split()[0].split(":")
    assert file == "batch.py"
    assert first <= int(line) < first + len(lines)


def test_counts_are_shown_per_step_with_the_most_frequent_first() -> None:
    counts = Counts({(READ, "a.py:1  item"): 2, (READ, "b.py:2  item"): 4, (COPY, "c.py:3  to"): 2})
    assert counts.table(READ, per=2).split() == ["2.00", "b.py:2", "item", "1.00", "a.py:1", "item"]


def test_tensors_are_saved_without_their_class(device: torch.device, tmp_path: pytest.TempPathFactory) -> None:
    file = tmp_path / "state.pt"  # type: ignore[operator]
    torch.save({"x": torch.arange(3.0).to(device)}, file)
    found = torch.load(file, weights_only=True, map_location="cpu")["x"]
    assert type(found) is Tensor
    assert found.tolist() == [0, 1, 2]
