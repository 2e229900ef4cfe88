"""How good are the features by now? The live monitor, and the accuracy curves of student and teacher."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import pytorch_lightning as pl

from ssl_bench.evaluation.evaluator import Evaluator
from ssl_bench.evaluation.features import Splits
from ssl_bench.methods.base import Method
from ssl_bench.results.history import History


@dataclass(frozen=True)
class Elsewhere:
    """Another dataset, on which networks are scored beside the run's own."""

    dataset: str  # its name
    evaluator: Evaluator


@dataclass(eq=False, repr=False)
class AccuracyMonitor(pl.Callback):
    """Adds ``<split>/<protocol>/<network>`` in percent to the history, of another dataset ``<dataset>:<split>/…``.

    The monitor scores the deployed network on validation images. The curves score student and teacher on validation
    and test images; test figures are recorded and nothing is chosen by them.
    """

    evaluator: Evaluator
    history: History
    _: KW_ONLY
    monitor: str  # protocol
    monitor_every: int  # epochs
    curves: Sequence[str]  # protocols
    curves_every: int  # epochs
    elsewhere: Elsewhere | None = None

    def __post_init__(self) -> None:
        self.versions = {name: protocol.version for name, protocol in self.evaluator.protocols.items()}
        self.loaded: dict[str, int] = {}  # versions by which a resumed run was scored so far; 1 where it is not stated
        self.last: dict[str, Splits] = {}  # networks after the last epoch, and what they were scored

    def on_fit_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        # No curve mixes versions. Here and not when a state is loaded, for the history is loaded after it.
        for name, version in self.versions.items():
            if self.history.rows and self.loaded.get(name, 1) != version:
                self.history.forget(name)

    def state_dict(self) -> dict[str, Any]:
        return {"versions": dict(self.versions)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded = dict(state["versions"])

    def on_train_epoch_end(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        assert isinstance(method, Method)
        epoch = trainer.current_epoch + 1
        last = epoch == trainer.max_epochs
        curves = last or epoch % self.curves_every == 0
        if not curves and epoch % self.monitor_every:
            return
        for network, backbone in method.networks().items():
            if not curves and network != method.evaluated:
                continue
            splits = self.evaluator.features(backbone, method.device)
            if last:
                self.last[network] = splits
            scored = [("", self.evaluator, splits)]
            if self.elsewhere:
                other = self.elsewhere.evaluator
                scored.append((f"{self.elsewhere.dataset}:", other, other.features(backbone, method.device)))
            for prefix, evaluator, features in scored:
                for on in ("validation", "test") if curves else ("validation",):
                    names = self.curves if curves else [self.monitor]
                    if on == "validation" and network == method.evaluated:
                        names = list(dict.fromkeys([self.monitor, *names]))
                    for name, score in evaluator.score(features, names, on).items():
                        if score.percent is not None:
                            self.history.add({f"{prefix}{on}/{name}/{network}": score.percent})
