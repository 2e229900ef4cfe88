"""BatchNorm over ranks equals nn.BatchNorm on the concatenated batch."""

from __future__ import annotations

import copy
import inspect
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from forked import in_ranks
from ssl_bench.nn import norm
from ssl_bench.nn.norm import SyncBatchNorm, synchronize

LAST = torch.channels_last
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


def batch_norm_stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    flat = x.transpose(0, 1).flatten(1)
    return flat.mean(1), 1 / (flat.var(1, correction=0) + eps).sqrt()


def batch_norm_gather_stats_with_counts(
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    assert mean.is_contiguous()
    assert invstd.is_contiguous()
    n, total = counts[:, None], counts.sum()
    together = (n * mean).sum(0) / total
    variance = (n * (invstd**-2 - eps + mean**2)).sum(0) / total - together**2
    if running_mean is not None and running_var is not None:
        running_mean.copy_((1 - momentum) * running_mean + momentum * together)
        running_var.copy_((1 - momentum) * running_var + momentum * variance * total / (total - 1))
    return together, 1 / (variance + eps).sqrt()


def batch_norm_elemt(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
) -> Tensor:
    found = ((x.movedim(1, -1) - mean) * invstd).movedim(-1, 1)
    if weight is not None and bias is not None:
        found = (found.movedim(1, -1) * weight + bias).movedim(-1, 1)
    return found


def batch_norm_backward_reduce(
    gradient: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None, *needed: bool
) -> tuple[Tensor, Tensor, None, None]:
    assert needed == (True, False, False)
    flat, centred = gradient.movedim(1, -1).flatten(0, -2), (x.movedim(1, -1) - mean).flatten(0, -2)
    return flat.sum(0), (flat * centred).sum(0), None, None


def batch_norm_backward_elemt(
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    sum_dy: Tensor,
    sum_dy_xmu: Tensor,
    count: Tensor,
) -> Tensor:
    assert count.dtype == torch.int32
    g, centred, n = gradient.movedim(1, -1), x.movedim(1, -1) - mean, count.sum()
    scale = invstd if weight is None else invstd * weight
    return ((g - sum_dy / n - centred * invstd**2 * sum_dy_xmu / n) * scale).movedim(-1, 1)


KERNELS = (
    batch_norm_stats,
    batch_norm_gather_stats_with_counts,
    batch_norm_elemt,
    batch_norm_backward_reduce,
    batch_norm_backward_elemt,
)


class Calls(TorchDispatchMode):
    """Names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[str(function.overloadpacket)] += 1
        return function(*args, **(kwargs or {}))


def counted(network: nn.Module, x: Tensor) -> dict[str, int]:
    """Operations of one training step on ``x``."""
    with Calls() as calls:
        network(x.requires_grad_()).square().sum().backward()
    return dict(calls.names)


def in_bfloat16(x: Tensor) -> dict[str, Any]:
    """Output and gradient for images whose channels lie together, as half-precision training has them."""
    network = layer("2d").float()
    synchronize(network)
    half = x.bfloat16().to(memory_format=LAST).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = network(half)
    y.float().square().sum().backward()
    assert half.grad is not None
    return {
        "y": y.detach().contiguous(),
        "x": half.grad.contiguous(),
        "kept": [t.dtype == half.dtype and t.is_contiguous(memory_format=LAST) for t in (y, half.grad)],
    }


def rank_program(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    found = results_of(rank, world)
    if world == 2:
        network = layer("2d")
        synchronize(network)
        found["calls"] = counted(network, inputs("2d", 2)[0][:4])
        found["bfloat16"] = in_bfloat16(inputs("2d", 2)[0][4 * rank : 4 * rank + 4])
        norm._kernels = lambda x: norm._Cuda  # as on a GPU
        for kernel in KERNELS:
            setattr(torch, kernel.__name__, kernel)
        found["cuda"] = results_of(rank, world)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def results_of(rank: int, world: int) -> dict[str, Any]:
    first = sum(ROWS[world][:rank])
    found: dict[str, Any] = {}
    for case in CASES:
        network = layer(case)
        synchronize(network)
        assert isinstance(network[0], SyncBatchNorm)  # type: ignore[index]
        rows = slice(first, first + ROWS[world][rank])
        found[case] = steps(network, *(whole[rows] for whole in inputs(case, world)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_have_output_gradient_and_statistics_of_one_process(tmp_path: Path, world: int) -> None:
    in_ranks(rank_program, world, os.fspath(tmp_path), world=world)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    assert_equal_one_process(ranks, world)
    if world == 2:
        assert_equal_one_process([found["cuda"] for found in ranks], world)
        assert_lean(ranks)


def assert_equal_one_process(ranks: list[dict[str, Any]], world: int) -> None:
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


def assert_lean(ranks: list[dict[str, Any]]) -> None:
    calls = ranks[0]["calls"]
    assert {name: count for name, count in calls.items() if name.startswith("c10d")} == {
        "c10d._allgather_base_": 1,
        "c10d.allreduce_": 1,
    }
    assert not {"aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.index"} & calls.keys()
    network = layer("2d").float()
    x = inputs("2d", 2)[0].bfloat16().float().requires_grad_()
    y = network(x)
    y.bfloat16().float().square().sum().backward()
    for name, expected in (("y", y), ("x", x.grad)):
        assert expected is not None
        together = torch.cat([found["bfloat16"][name] for found in ranks]).float()
        torch.testing.assert_close(together, expected.detach(), rtol=2e-2, atol=2e-2)
    assert all(all(found["bfloat16"]["kept"]) for found in ranks)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_the_kernels_restated_take_what_torch_s_take(kernel: Callable[..., Any]) -> None:
    wanted = [argument.name for argument in getattr(torch.ops.aten, kernel.__name__).default._schema.arguments]
    mine = [name for name in inspect.signature(kernel).parameters if name != "needed"]
    alike = {"input": "x", "grad_out": "gradient"}
    assert mine == [alike.get(name, name) for name in wanted][: len(mine)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last", [False, True])
def test_the_kernels_restated_compute_what_torch_s_compute(dtype: torch.dtype, last: bool) -> None:
    x, g = (t.float() - 100 * (t.mean() > 50) for t in inputs("2d", 2))
    moved = [t.to("cuda", dtype, memory_format=LAST if last else torch.contiguous_format) for t in (x, g)]
    weight, bias = torch.randn(2, 4, device="cuda")
    for found, expected in zip(
        *(
            (
                *(statistics := kernels.statistics(moved[0], None, None, 0.1, 1e-5)),
                kernels.normalise(moved[0], weight, bias, *statistics[:2], 1e-5),
                sums := kernels.sums(moved[1], moved[0], *statistics[:2]),
                kernels.of_input(moved[1], moved[0], weight, *statistics[:2], sums, statistics[2]),
            )
            for kernels in (norm._Cuda, norm._Plain)
        ),
        strict=True,
    ):
        close = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(found, expected, **close)


def test_conversion_keeps_tensors_settings_keys_and_kind() -> None:
    network = nn.ModuleDict({"a": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.0)), "b": nn.ReLU()})
    before = network.state_dict(keep_vars=True)
    synchronize(network)
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
        synchronize(network)
        expected, found = (steps(each, *inputs(case, 2)) for each in (layer(case), network))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


class Straight(nn.Module):
    """Layers without a loop over them, where torch.compile would leave out all."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.linear(x).sigmoid())
        return normalised.relu()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # which torch.compile hides by itself
def test_compiled_networks_leave_the_layer_out_of_their_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "world_size", lambda: 2)  # as if another rank had the same rows
    monkeypatch.setattr(norm, "gather", lambda rows: rows.repeat(2, 1))
    monkeypatch.setattr(norm, "total_over_ranks", lambda x: 2 * x)
    plain = Straight()
    synchronize(plain)
    compiled, graphs = copy.deepcopy(plain), []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compiled.compile(backend=keep)
    x = torch.randn(8, 3)
    found = [steps(network, x, torch.ones(8, 4)) for network in (compiled, plain)]
    torch.testing.assert_close(*found, rtol=0, atol=0)
    assert graphs
    assert not any(isinstance(part, torch.fx.GraphModule) for graph in graphs for part in graph.children())


def test_a_layer_whose_rows_are_the_same_on_all_ranks_asks_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("other ranks were asked")

    monkeypatch.setattr(norm, "world_size", lambda: 2)
    monkeypatch.setattr(norm, "gather", refuse)
    plain, layer = nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm1d(4))
    norm.synchronize(layer)
    layer[0].shared = False
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), plain(x))
    assert torch.equal(layer[0].running_var, plain.running_var)
    layer[0].shared = True
    with pytest.raises(AssertionError, match="other ranks were asked"):
        layer(x)
