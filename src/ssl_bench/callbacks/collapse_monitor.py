"""Is the representation collapsing? Four figures per epoch, and a warning."""

import re
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from ssl_bench.batch import Batch
from ssl_bench.distributed import gather
from ssl_bench.evaluation import collapse
from ssl_bench.results.history import History


class CollapseMonitor(pl.Callback):
    """Measures the student's embeddings of each epoch's last batch, ``[N, D]`` per view: those of all ranks."""

    def __init__(self, history: History, warn: Callable[[str], None]) -> None:
        self.history = history
        self.warn = warn
        self.warned: list[str] = []

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch:
            return
        views = [gather(z.float()) for z in outputs["embeddings"]]
        panel = {
            "embedding_std": collapse.embedding_std(views[0]),
            "rankme": collapse.rankme(views[0]),
            "uniformity": collapse.uniformity(views[0]),
        }
        if len(views) > 1:
            panel["alignment"] = collapse.alignment(views[0], views[1])
        self.history.add({f"collapse/{name}": float(value) for name, value in panel.items()})
        rows, dimension = views[0].shape
        for sentence in collapse.collapse_warnings(panel, dimension=dimension, rows=rows):
            # Shown once: in the next epoch the same sign has other figures.
            if _without_figures(sentence) not in [
                _without_figures(earlier.split(": ", 1)[1]) for earlier in self.warned
            ]:
                self.warned.append(f"epoch {trainer.current_epoch + 1}: {sentence}")
                self.warn(self.warned[-1])

    def state_dict(self) -> dict[str, Any]:
        return {"warned": list(self.warned)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.warned = list(state["warned"])


def _without_figures(sentence: str) -> str:
    return re.sub(r"[-−]?\d[\d.e-]*", "", sentence)
