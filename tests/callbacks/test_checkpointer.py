"""What a checkpoint keeps of the devices, and what it takes back where there are others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_bench.callbacks.checkpointer import Checkpointer


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
    assert state["rng"]["cuda"].tolist() == [1]
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
