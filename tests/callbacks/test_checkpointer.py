"""What a checkpoint keeps of the devices, and when it is saved: which signals ask for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_bench import entry
from ssl_bench.callbacks.checkpointer import Checkpointer, Interrupted


def on(device: str) -> Any:
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> dict[torch.device, torch.Tensor]:
    """Generators of two GPUs that are not there."""
    found = {torch.device("cuda", number): torch.tensor([number], dtype=torch.uint8) for number in range(2)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: found[device].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: found.__setitem__(device, state))
    return found


def test_a_run_keeps_the_generator_of_its_gpu_alone_and_resumes_on_another(
    cards: dict[torch.device, torch.Tensor],
) -> None:
    checkpointer, method = Checkpointer(Path(), fingerprint="f", every_seconds=1.0), torch.nn.Linear(1, 1)
    state: dict[str, Any] = {}
    checkpointer.on_save_checkpoint(on("cuda:1"), method, state)  # type: ignore[arg-type]
    assert [own["cuda"].tolist() for own in state["rng"]] == [[1]]
    checkpointer.on_load_checkpoint(on("cuda:0"), method, state)  # type: ignore[arg-type]
    assert cards[torch.device("cuda", 0)].tolist() == [1]
    del cards[torch.device("cuda", 1)]  # fewer are visible now
    checkpointer.on_load_checkpoint(on("cuda:0"), method, state)  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [[], [torch.tensor([7], dtype=torch.uint8)] * 8])
def test_checkpoints_of_all_gpus_that_were_visible_are_read(
    kept: list[torch.Tensor], cards: dict[torch.device, torch.Tensor]
) -> None:
    checkpointer, method = Checkpointer(Path(), fingerprint="f", every_seconds=1.0), torch.nn.Linear(1, 1)
    state = {"ssl_bench": {"finished_epochs": 3}, "rng": {"cpu": torch.get_rng_state(), "cuda": kept}}
    checkpointer.on_load_checkpoint(on("cuda:0"), method, state)  # type: ignore[arg-type]
    assert cards[torch.device("cuda", 0)].tolist() == ([7] if kept else [0])
    checkpointer.on_load_checkpoint(on("cpu"), method, state)  # type: ignore[arg-type]


STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {name: signal.getsignal(name) for name in STOPPING}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests themselves run under nohup
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


def listening() -> Checkpointer:
    checkpointer = Checkpointer(Path("last.ckpt"), fingerprint="a", every_seconds=1e9)
    nobody: Any = None
    checkpointer.on_train_start(nobody, nobody)
    return checkpointer


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("name", STOPPING, ids=lambda name: name.name)
def test_a_signal_is_a_wish_a_second_one_an_order_and_after_training_all_is_as_before(
    name: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(name)
    checkpointer = listening()
    os.kill(os.getpid(), name)
    assert checkpointer.asked is name
    assert checkpointer._due()
    assert checkpointer.agreed is name
    os.kill(os.getpid(), signal.SIGTERM)  # so soon it is the same wish, which a parent passes on
    with pytest.raises(Interrupted, match="stopped at once by a second signal"):
        os.kill(os.getpid(), signal.SIGINT)
    monkeypatch.setattr(entry, "SAME_REQUEST", 0.0)
    with pytest.raises(Interrupted, match="stopped at once by a second signal"):
        os.kill(os.getpid(), signal.SIGTERM)
    nobody: Any = None
    checkpointer.on_train_end(nobody, nobody)
    assert signal.getsignal(name) is before


@pytest.mark.usefixtures("handlers")
def test_a_terminal_that_goes_counts_once_however_often_it_signals() -> None:
    checkpointer = listening()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGHUP)
    assert checkpointer.asked is signal.SIGHUP


@pytest.mark.usefixtures("handlers")
def test_under_nohup_the_end_of_the_terminal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    checkpointer = listening()
    os.kill(os.getpid(), signal.SIGHUP)
    assert checkpointer.asked is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
