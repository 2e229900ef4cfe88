"""The certificate: every method on two and three ranks, and what it shows of methods that fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from emulated import emulation
from ssl_bench.augment.views import Views
from ssl_bench.cli import check
from ssl_bench.config.options import GROUPS
from ssl_bench.training import certificate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "methods"), [(2, GROUPS["method"]), (3, ["pic", "swav"])]
)  # three: those that share out instances or prototypes
def test_methods_train_in_several_processes_as_in_one_and_resume(
    capsys: pytest.CaptureFixture[str], world: int, methods: list[str]
) -> None:
    assert check.main([f"world={world}", f"method={','.join(methods)}"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in methods)
    assert "Every method holds." in shown


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("method=byoll", "method=byoll is unknown; did you mean byol?"),
        ("world=5", "world=5 does not divide the 12 images"),
        ("world=1", "world=1 is not allowed: world is a whole number at least 2 and at most 12"),
        ("lerns", "there is no check lerns; did you mean learns?"),
        ("worlds=2", "option worlds is unknown; did you mean world?"),
        ("device=gpu", "device=gpu is not allowed: device is auto or cpu or cuda"),
        ("device=cuda", "device=cuda, but PyTorch finds no CUDA device: use device=cpu."),
    ],
)
def test_a_wrong_option_is_answered_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, part: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check.main([option]) == 2
    assert part in capsys.readouterr().err


def test_help_names_the_columns_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("alone", "synced", "ranks", "resume", "bf16", "method=all", "world=2"))


def test_differences_are_relative_and_names_must_agree() -> None:
    one = {"a": torch.tensor([100.0, 1.0]), "b": torch.tensor([1.0])}
    assert certificate.difference(one, {"a": torch.tensor([100.0, 2.0]), "b": torch.tensor([1.0])}) == pytest.approx(
        0.01
    )
    assert certificate.difference(one, {"a": one["a"]}) == float("inf")


def test_ranks_that_differ_from_one_process_or_from_each_other_are_seen() -> None:
    def trace(loss: float, gradient: float, state: float) -> certificate.Trace:
        named = [{"w": torch.tensor([value])} for value in (gradient, state)]
        return {"losses": [loss], "gradients": [named[0]], "state": named[1]}

    same = certificate.compare(trace(1, 2, 3), [trace(1, 2, 3), trace(1, 2, 3)])
    assert (same["loss"], same["gradient"], same["state"], same["replicas"]) == (0, 0, 0, True)
    half = certificate.compare(trace(1, 2, 3), [trace(1, 1, 3), trace(1, 1, 3)])
    assert half["gradient"] == pytest.approx(0.5)
    apart = certificate.compare(trace(1, 2, 3), [trace(1, 2, 3), trace(1, 2, 3.3)])
    assert not apart["replicas"]
    assert apart["state"] == pytest.approx(0.1)


def test_what_is_no_number_on_one_side_alone_is_infinitely_apart() -> None:
    one = {"a": torch.tensor([1.0, 2.0])}
    assert certificate.difference(one, {"a": torch.tensor([1.0, float("nan")])}) == float("inf")


def test_a_method_that_fails_is_a_row_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One fails among the ranks, one alone; the third is examined all the same."""
    verdict = certificate.Verdict(
        {"loss": 0.0, "gradient": 0.0, "alone": 0.0, "synced": 0.0}, {"ranks": True, "resume": True}, (0.0, 0.0)
    )

    def train_in_ranks(methods: Sequence[str], world: int, folder: Path, device: str) -> dict[str, str]:
        for name in methods[1:]:
            for rank in range(world):
                torch.save({}, folder / f"{name}-{rank}.pt")
        return {methods[0]: "method.queue=64 is no multiple of 12."}

    def examine(name: str, *_: object) -> certificate.Verdict:
        if name == "byol":
            raise ValueError("a shape is wrong")
        return verdict

    monkeypatch.setattr(certificate, "train_in_ranks", train_in_ranks)
    monkeypatch.setattr(certificate, "examine", examine)
    assert check.main(["method=[moco,byol,simclr]", "device=cpu"]) == 1
    shown = capsys.readouterr().out
    assert "moco failed: method.queue=64 is no multiple of 12." in shown
    assert "byol failed: a shape is wrong" in shown
    rows = [line for line in shown.splitlines() if "simclr" in line]
    assert len(rows) == 1
    assert "equal" in rows[0]
    assert "A method does not hold" in shown


@pytest.mark.slow
def test_a_method_that_ends_its_ranks_leaves_the_next_one_to_be_trained(tmp_path: Path) -> None:
    failed = certificate.train_in_ranks(["simclear", "simclr"], 2, tmp_path, "cpu")
    assert list(failed) == ["simclear"]
    assert failed["simclear"].startswith("method=simclear is unknown; did you mean simclr?")
    assert {file.name for file in tmp_path.glob("*.pt")} == {"simclr-0.pt", "simclr-1.pt"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["byol", "clbo", "pic"])
def test_another_device_sees_the_views_of_the_cpu_and_what_it_computes_otherwise_is_seen(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The CPU in the part of the other device: equal to itself, and not where its losses are a thousandth larger."""
    assert certificate.beside_cpu(name, "cpu") == {"float64": 0.0, "float32": 0.0}
    train, calls = certificate.train, []

    def every_second_is_off(*arguments: Any, **options: Any) -> certificate.Trace:
        trace = train(*arguments, **options)
        calls.append(trace)
        if len(calls) % 2 == 0:
            trace["losses"] = [loss * 1.001 for loss in trace["losses"]]
        return trace

    monkeypatch.setattr(certificate, "train", every_second_is_off)
    found = certificate.beside_cpu(name, "cpu")
    assert found["float64"] == pytest.approx(1e-3)
    assert found["float64"] > certificate.TOLERANCE["float64"]


def test_on_a_device_that_computes_as_the_cpu_does_nothing_differs_from_it() -> None:
    with emulation():
        assert certificate.beside_cpu("clbo", "emulated") == {"float64": 0, "float32": 0}


PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default}
CONVOLUTIONS = {torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default}


class Rounded(TorchDispatchMode):
    """Matrix products and convolutions, backward too, of operands as ``rounded``; the results are float32."""

    def __init__(self, operations: set[Any], rounded: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operations = operations
        self.rounded = rounded
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [one for one in tree_leaves(args) if isinstance(one, Tensor)]
        if function not in self.operations or not any(one.dtype == torch.float32 for one in tensors):
            return function(*args, **(kwargs or {}))
        self.count += 1
        found = function(*tree_map_only(Tensor, self._operand, args), **(kwargs or {}))
        return tree_map_only(Tensor, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, found)

    def _operand(self, tensor: Tensor) -> Tensor:
        return self.rounded(tensor) if tensor.dtype == torch.float32 else tensor


def tf32(tensor: Tensor) -> Tensor:
    """Ten bits of mantissa, to the nearest, ties to even."""
    bits = tensor.clone().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def test_rounding_to_tf32() -> None:
    ties = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11 - 2**-20, 2.0**-130, 0.0])
    assert tf32(ties).tolist() == [1.0, 1 + 2**-9, -1 - 2**-10, 2.0**-130, 0.0]


def differences(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What is found beside plain float32 of other roundings, whose views are drawn as by the CPU."""
    draw = Views.forward

    def drawn(self: Views, *given: Any, **options: Any) -> Any:
        with _disable_current_modes():
            return draw(self, *given, **options)

    monkeypatch.setattr(Views, "forward", drawn)
    plain, found = certificate.train(name), {}
    for case, operations, rounded in (
        ("exact", PRODUCTS | CONVOLUTIONS, Tensor.double),
        ("TF32", PRODUCTS | CONVOLUTIONS, tf32),
        ("TF32 in convolutions", CONVOLUTIONS, tf32),
        ("TF32 in matrix products", PRODUCTS, tf32),
    ):
        with Rounded(operations, rounded) as mode:
            found[case] = certificate.single_difference(plain, certificate.train(name))
        assert mode.count
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS["method"])
def test_tf32_is_distinguished_from_the_rounding_of_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, tolerance = differences(name, monkeypatch), certificate.TOLERANCE["float32"]
    assert 0 < found.pop("exact") < tolerance / 3
    assert found.pop("TF32 in matrix products") > 1.5 * tolerance
    assert all(figure > 100 * tolerance for figure in found.values())


def test_what_two_devices_differ_by_in_float32_is_not_what_they_differ_by_in_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = certificate.train

    def train(name: str, **options: Any) -> certificate.Trace:
        trace = plain(name, **{**options, "device": "cpu"})
        if options["device"] != "cpu" and options.get("norms") is None:
            trace["gradients"][0] = {key: 1.02 * value for key, value in trace["gradients"][0].items()}
        return trace

    monkeypatch.setattr(certificate, "train", train)
    found = certificate.beside_cpu("simclr", "emulated")
    assert found["float64"] == 0
    assert found["float32"] == pytest.approx(0.02, rel=0.01)
    assert found["float32"] > certificate.TOLERANCE["float32"]
