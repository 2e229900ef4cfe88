"""Figures that others have published, beside ours only where they mean the same."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from importlib import resources

from ssl_bench.config.schema import Config

# Their protocol → ours with the same meaning: frozen features of the last epoch, scored on test images. What is scored
# during training (online), at the best epoch on test images or with augmented views is another protocol.
SAME = {"knn1_cosine_last": "knn1", "knn200_T0.1_last": "knn200", "linear_frozen": "linear"}
UNKNOWN = "not stated"
BACKBONES = {"resnet18", "resnet18_cifar"}  # the network of scale=paper, with the stem that the dataset has there


@dataclass(frozen=True)
class Figure:
    """One published accuracy."""

    method: str
    dataset: str
    protocol: str
    epochs: str
    batch_size: str
    backbone: str
    top1_percent: str
    source: str

    @property
    def origin(self) -> str:
        """Where it is from and how it came about, for a footnote."""
        epochs = f"{self.epochs} epochs" if self.epochs.isdigit() else f"epochs {self.epochs}"
        return f"{self.source}; {epochs}, batch {self.batch_size}, {self.backbone}"

    def differs(self, config: Config) -> bool:
        """Whether a run with ``config`` has other settings than those stated of this figure."""
        network = config.backbone.name == "resnet18" and config.backbone.width == 64
        whole = config.subset is None and config.labels is None
        ours = ((self.epochs, config.epochs), (self.batch_size, config.batch_size))
        alike = all(stated in (UNKNOWN, str(own)) for stated, own in ours)
        return not (alike and network and whole and self.backbone in BACKBONES)

    def means_the_same(self, protocol: str, config: Config) -> bool:
        """Whether it may stand beside our accuracy under ``protocol`` of a run with ``config``."""
        known = UNKNOWN not in (self.epochs, self.batch_size)
        return SAME.get(self.protocol) == protocol and known and not self.differs(config)


@functools.cache
def figures() -> tuple[Figure, ...]:
    """All of published.csv."""
    text = (resources.files("ssl_bench.report") / "published.csv").read_text(encoding="utf-8")
    return tuple(Figure(**row) for row in csv.DictReader(text.splitlines()))
