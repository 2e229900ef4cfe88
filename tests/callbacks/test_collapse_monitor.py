"""A collapse is shown in a sentence, once, and stays in the record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from ssl_bench.callbacks.collapse_monitor import CollapseMonitor
from ssl_bench.results.history import History


def epochs(*embeddings: torch.Tensor) -> tuple[list[str], CollapseMonitor, History]:
    shown: list[str] = []
    history = History()
    monitor = CollapseMonitor(history, shown.append)
    for number, z in enumerate(embeddings):
        trainer: Any = SimpleNamespace(is_last_batch=True, current_epoch=number)
        method: Any = None
        batch: Any = None
        monitor.on_train_batch_end(trainer, method, {"embeddings": [z, z.flip(0)]}, batch, 0)
        history.close()
    return shown, monitor, history


def test_spread_embeddings_say_nothing() -> None:
    torch.manual_seed(0)
    shown, _, history = epochs(torch.randn(64, 16))
    assert shown == []
    assert set(history.rows[0]) == {f"collapse/{n}" for n in ("embedding_std", "rankme", "uniformity", "alignment")}


def test_a_collapse_is_shown_when_it_begins_and_not_again_with_other_figures() -> None:
    torch.manual_seed(0)
    point = torch.ones(64, 16)
    shown, monitor, _ = epochs(
        torch.randn(64, 16), point + 1e-3 * torch.randn(64, 16), point + 2e-3 * torch.randn(64, 16)
    )
    assert shown
    assert all(sentence.startswith("epoch 2: Collapsed") for sentence in shown)
    assert monitor.warned == shown


def test_a_resumed_run_remembers_what_was_shown() -> None:
    shown, monitor, _ = epochs(torch.ones(64, 16))
    again = CollapseMonitor(History(), shown.append)
    again.load_state_dict(monitor.state_dict())
    assert again.warned == monitor.warned != []


def test_a_method_with_one_view_has_no_alignment() -> None:
    torch.manual_seed(0)
    history = History()
    trainer: Any = SimpleNamespace(is_last_batch=True, current_epoch=0)
    method: Any = None
    batch: Any = None
    outputs = {"embeddings": [torch.randn(64, 16)]}
    CollapseMonitor(history, print).on_train_batch_end(trainer, method, outputs, batch, 0)
    history.close()
    assert set(history.rows[0]) == {f"collapse/{name}" for name in ("embedding_std", "rankme", "uniformity")}
