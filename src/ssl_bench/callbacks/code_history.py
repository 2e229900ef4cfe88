"""Which code a run was trained by, over interruptions."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

Version = dict[str, Any]  # as `results.record.code_version` gives it, and the digest of the method's code


class CodeHistory(pl.Callback):
    """Keeps in the checkpoint by what it was made; ``earlier`` are the versions of other sessions, in order."""

    def __init__(self, now: Version) -> None:
        self.now = now
        self.earlier: list[Version] = []

    def state_dict(self) -> dict[str, Any]:
        return {"versions": [*self.earlier, self.now]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.earlier = [version for version in state["versions"] if version != self.now]


def saved_by(checkpoint: Mapping[str, Any]) -> list[Version]:
    """The versions that a checkpoint was made by, in order; none where it holds none."""
    versions: list[Version] = checkpoint["callbacks"].get(CodeHistory.__name__, {}).get("versions", [])
    return versions
