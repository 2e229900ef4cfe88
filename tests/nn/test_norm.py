"""BatchNorm over ranks equals nn.BatchNorm on the concatenated batch."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from ssl_bench.nn.norm import SyncBatchNorm, synchronize

ROWS = {2: (5, 3), 3: (4, 0, 2)}  # rows of each rank: uneven, and none
CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "2d": (nn.BatchNorm2d(4), (4, 3, 2)),
    "1d": (nn.BatchNorm1d(4, momentum=0.3, eps=1e-3), (4,)),
    "frozen statistics": (nn.BatchNorm2d(4, momentum=0.0), (4, 3, 2)),
    "plain average": (nn.BatchNorm1d(4, momentum=None), (4,)),
    "no affine": (nn.BatchNorm1d(4, affine=False), (4,)),
}


def layer(case: str) -> nn.Module:
    """A layer in float64 whose parameters are not the initial ones, with a name in front of its state's keys."""
    network = nn.Sequential(copy.deepcopy(CASES[case][0])).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network


def inputs(case: str, world: int) -> tuple[Tensor, Tensor]:
    """The global batch, far from mean 0, and the weights of its loss."""
    generator = torch.Generator().manual_seed(2)
    shape = (sum(ROWS[world]), *CASES[case][1])
    x, weights = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return 100 + 3 * x, weights


def steps(network: nn.Module, x: Tensor, weights: Tensor) -> dict[str, Any]:
    """Two training steps: output, gradients of the summed loss, state."""
    x = x.clone().requires_grad_()
    for _ in range(2):
        y = network(x)
        network.zero_grad()
        x.grad = None
        (y.square() * weights + y * weights).sum().backward()
    assert x.grad is not None
    return {
        "y": y.detach(),
        "x": x.grad,
        "parameters": [p.grad for p in network.parameters()],
        "state": dict(network.state_dict()),
        "evaluated": network.eval()(x).detach(),
    }


def rank_program(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    first = sum(ROWS[world][:rank])
    found = {}
    for case in CASES:
        network = layer(case)
        synchronize(network, cuda=False)
        assert isinstance(network[0], SyncBatchNorm)  # type: ignore[index]
        rows = slice(first, first + ROWS[world][rank])
        found[case] = steps(network, *(whole[rows] for whole in inputs(case, world)))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_have_output_gradient_and_statistics_of_one_process(tmp_path: Path, world: int) -> None:
    mp.spawn(rank_program, args=(world, os.fspath(tmp_path)), nprocs=world)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    exact = {"rtol": 0.0, "atol": 1e-10}
    for case in CASES:
        expected = steps(layer(case), *inputs(case, world))
        for name in ("y", "x", "evaluated"):
            together = torch.cat([found[case][name] for found in ranks])
            torch.testing.assert_close(
                together, expected[name], **exact, msg=lambda text, at=(case, name): f"{at}: {text}"
            )
        for number, gradient in enumerate(expected["parameters"]):
            together = torch.stack([found[case]["parameters"][number] for found in ranks]).sum(0)
            torch.testing.assert_close(together, gradient, **exact)
        for found in ranks:
            torch.testing.assert_close(found[case]["state"], expected["state"], **exact)


def test_conversion_keeps_tensors_settings_keys_and_kind() -> None:
    network = nn.ModuleDict({"a": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.0)), "b": nn.ReLU()})
    before = network.state_dict(keep_vars=True)
    synchronize(network, cuda=False)
    after = network.state_dict(keep_vars=True)
    assert list(before) == list(after)
    assert all(before[key] is after[key] for key in before)
    norm = network["a"][1]  # type: ignore[index]
    assert isinstance(norm, SyncBatchNorm)
    assert norm.momentum == 0.0
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)


def test_one_process_alone_computes_as_batch_norm_does() -> None:
    for case in CASES:
        network = layer(case)
        synchronize(network, cuda=False)
        expected, found = (steps(each, *inputs(case, 2)) for each in (layer(case), network))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
