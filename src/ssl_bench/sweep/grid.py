"""What has become of each run of a sweep, known by its fingerprint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl_bench import conditions
from ssl_bench.config.experiments import Cell, passes_per_epoch
from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.results.code import code_digest, is_other_code
from ssl_bench.results.run_folder import RunFolder

# What may have become of a run; running is one of this sweep, elsewhere one of another process.
STATES = ("done", "running", "elsewhere", "interrupted", "failed", "left")


@dataclass
class SweepRun:
    """A run of the sweep and what is known of it."""

    cell: Cell
    config: Config
    folder: RunFolder
    state: str = field(init=False, default="left")
    error: str = field(init=False, default="")  # why it failed
    damaged: bool = field(init=False, default=False)  # its record is, so that trying again would not help
    changed: bool = field(init=False, default=False)  # its code has, since it was done
    deaths: int = field(init=False, default=0)  # how often it ended without being asked to, since it got further
    reached: float = field(init=False, default=0.0)  # its progress at the last of them
    began: float = field(init=False, default=0.0)  # when it was started in this sweep
    seconds: float | None = field(init=False, default=None)  # what it took, once it is done

    @property
    def kind(self) -> tuple[str, str]:
        return self.cell.row, self.cell.dataset

    def refresh(self) -> None:
        """Find the state on the disk; for runs that this sweep is not at work on."""
        self.error, self.damaged, self.changed, self.seconds = "", False, False, None
        try:
            record = self.folder.finished()
        except UserError as error:
            self.state, self.error, self.damaged = "failed", str(error), True
            return
        self.changed = record is not None and is_other_code(
            record.code_versions, code_digest(self.config.method.target), unknown=self.config.rerun
        )
        if self.changed and self.config.rerun:
            self.state = "left"
        elif record is not None:
            self.state = "done"
            # Of a run that was interrupted, its last session or all of its training.
            known = [took for took in (record.session_seconds, record.train_seconds) if took is not None]
            self.seconds = max(known, default=None)
        elif self.folder.busy():
            self.state = "elsewhere"
        elif (failure := self.folder.failed()) is not None:
            self.state, self.error = "failed", failure
        else:
            self.state = "interrupted" if self.folder.checkpoint.exists() else "left"

    def progress(self) -> float | None:
        """The share of epochs that are over, by ``metrics.csv``; None before the first is."""
        try:
            with self.folder.metrics.open("rb") as file:
                rows = sum(1 for _ in file) - 1
        except OSError:
            return None
        return min(1.0, rows / (self.config.epochs * passes_per_epoch(self.config))) if rows > 0 else None


def entries(cells: Sequence[Cell], configs: Sequence[Config], names: Sequence[str]) -> list[SweepRun]:
    """The runs, each once and as it stands on the disk."""
    found: dict[Path, SweepRun] = {}
    for cell, config, name in zip(cells, configs, names, strict=True):
        path = Path(config.runs_dir) / name
        found.setdefault(path, SweepRun(cell, config, RunFolder(path)))
    for entry in found.values():
        entry.refresh()
    return list(found.values())


def require_compiling(configs: Sequence[Config]) -> None:
    """UserError where a run is to be compiled and this machine cannot: it would become another run."""
    from ssl_bench.devices import resolve_device, why_not_compiled

    for accelerator in {config.trainer.accelerator for config in configs if config.trainer.compile}:
        if reason := why_not_compiled(resolve_device(accelerator)):
            raise UserError(f"trainer.compile=true does not work on this machine ({reason}): leave it out.")


def fingerprints(configs: Sequence[Config]) -> list[str]:
    """The name of each run; reads each dataset once, in a process that need not live longer than that.

    Raises:
        UserError: a dataset cannot be read (all of them are named), or no run of these overrides could start here.
    """
    from ssl_bench.training import launch
    from ssl_bench.training.build import build_data, fingerprint_of

    digests: dict[str, str] = {}
    missing: dict[str, str] = {}
    for config in configs:
        launch.needed(config)
        conditions.require_logger(config.logger.name)
        key = _data_key(config)
        if key in digests or key in missing:
            continue
        try:
            digests[key] = build_data(config).digest
        except UserError as error:
            missing[key] = str(error)
    if missing:
        reasons = [sentence.rstrip(".") for sentence in dict.fromkeys(missing.values())]
        raise UserError(
            f"nothing was started, for data are missing: {'; '.join(reasons)}."
            if len(reasons) > 1
            else f"nothing was started: {reasons[0]}."
        )
    return [fingerprint_of(config, digests[_data_key(config)]) for config in configs]


def _data_key(config: Config) -> str:
    """Equal where the images and their uses are."""
    plain = config.as_dict()
    chosen = {key: plain[key] for key in ("dataset", "data_dir", "subset", "labels")}
    return json.dumps([chosen, config.scale.hold_out_validation], sort_keys=True)
