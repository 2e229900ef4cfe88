from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_bench.evaluation import knn
from ssl_bench.evaluation.features import Features, extract
from ssl_bench.evaluation.linear import LinearProbe
from ssl_bench.evaluation.precision import OPERATIONS, _exists, full_float32

CPU = torch.device("cpu")
newer = pytest.mark.skipif(not _exists("cudnn.conv"), reason="this version of torch has the older switches alone")


def newer_switches() -> dict[str, Any]:
    backends = torch.backends
    operations = {
        "cuda.matmul": backends.cuda.matmul,
        "cudnn.conv": backends.cudnn.conv,
        "cudnn.rnn": backends.cudnn.rnn,
        "mkldnn.matmul": backends.mkldnn.matmul,
        "mkldnn.conv": backends.mkldnn.conv,
        "mkldnn.rnn": backends.mkldnn.rnn,
    }
    return {name: operation.fp32_precision for name, operation in operations.items()}


def read(get: Callable[[], Any]) -> Any:
    try:
        return get()
    except RuntimeError:
        return "contradictory"


def older_switches() -> list[Any]:
    return [
        read(torch.get_float32_matmul_precision),
        read(lambda: torch.backends.cudnn.allow_tf32),
        read(lambda: torch.backends.cuda.matmul.allow_tf32),
    ]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


def nothing() -> None:
    pass


def high() -> None:
    torch.set_float32_matmul_precision("high")


def medium() -> None:
    torch.set_float32_matmul_precision("medium")


def every_operation() -> None:
    torch.backends.fp32_precision = "tf32"  # type: ignore[attr-defined]


def convolutions_alone() -> None:
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def older() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = False


SETTINGS = pytest.mark.parametrize("user", [nothing, high, medium, every_operation, convolutions_alone, older])


@newer
@SETTINGS
def test_within_all_is_float32_and_afterwards_as_the_user_has_set_it(user: Callable[[], None]) -> None:
    user()
    before = newer_switches(), older_switches()
    with full_float32(CPU), full_float32(CPU):
        assert set(newer_switches().values()) == {"ieee"}
        assert older_switches() == ["highest", False, False]  # torch itself reads them, and fails if they contradict
    assert (newer_switches(), older_switches()) == before
    with pytest.raises(KeyError), full_float32(CPU):
        raise KeyError
    assert (newer_switches(), older_switches()) == before


def test_older_versions_of_torch_have_fewer_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_bench.evaluation.precision.OPERATIONS", ("cuda.nothing", "cudnn.nothing.more"))
    medium()
    with full_float32(CPU):
        assert older_switches() == ["highest", False, False]
    assert older_switches() == ["medium", True, True]


def test_the_switches_are_torchs() -> None:
    assert [name for name in OPERATIONS if _exists(name)] in ([], list(OPERATIONS))


class Watching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((set(newer_switches().values()), torch.is_autocast_enabled("cpu")))
        return images.flatten(1).float()


@newer
@SETTINGS
def test_networks_are_evaluated_in_float32(user: Callable[[], None]) -> None:
    from test_features import batches

    user()
    network = Watching()
    with torch.autocast("cpu", torch.bfloat16):
        extract(network, nn.Identity(), batches([4, 3]), device="cpu")
    assert network.seen == [({"ieee"}, False)] * 2


@newer
def test_neighbours_and_probe_are_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    matmul = torch.Tensor.__matmul__

    def watching(self: Tensor, other: Tensor) -> Tensor:
        seen.append(set(newer_switches().values()))
        return matmul(self, other)

    monkeypatch.setattr(torch.Tensor, "__matmul__", watching)
    high()
    generator = torch.Generator().manual_seed(0)
    features = Features(torch.randn(40, 5, generator=generator), torch.arange(40) % 2, torch.arange(40))
    knn.predict(features.x, features.labels, features.x, k=3, temperature=0.1, classes=2, budget=1 << 20)
    knn.neighbours(features.x[:1].expand(40, 5), features.x, 3, 1 << 20)
    searched = len(seen)
    assert searched
    probe = LinearProbe((0.1,), epochs=1, batch_size=20, momentum=0.9, weight_decay=0.0, seed=0)
    probe.fit(features, features, 2).predict(features.x)
    assert len(seen) > searched
    assert all(switches == {"ieee"} for switches in seen)
