"""What a run finds in its folder: a finished run, or a checkpoint, perhaps of other code or other protocols."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from ssl_bench.callbacks.checkpointer import read_checkpoint
from ssl_bench.callbacks.code_history import saved_by
from ssl_bench.config.schema import Config
from ssl_bench.evaluation import baselines
from ssl_bench.report.tables import NAMES
from ssl_bench.results.code import code_digest, is_other_code
from ssl_bench.results.record import Record
from ssl_bench.results.run_folder import RunFolder
from ssl_bench.training.build import build_protocols


def warn(console: Console, sentence: str) -> None:
    """Show a warning; file names in it need not be text."""
    shown = sentence.encode(errors="backslashreplace").decode()
    console.print(f"warning: {shown}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def finished(config: Config, folder: RunFolder, console: Console) -> Record | None:
    """The record of the finished run, unless there is none or ``rerun`` trains it again."""
    record = folder.finished()
    if record is None or _starts_over(record.code_versions, "it was trained", config, folder, console):
        return None
    console.print(f"Finished before: {folder.path}", highlight=False, markup=False, soft_wrap=True)
    changed = _other_versions(record, config)
    if changed:
        again = f"without {folder.record.name} in {folder.path} the same command scores it again from its checkpoint"
        if not folder.checkpoint.exists():
            again = "rerun=true trains it again, for it has no checkpoint to score"
        warn(console, f"scored by {changed}, which tables do not mix with it; {again}.")
    return record


def step_to_resume(config: Config, folder: RunFolder, console: Console) -> int | None:
    """The step of the checkpoint that training resumes from; None where it starts at the beginning."""
    checkpoint = read_checkpoint(folder.checkpoint, folder.fingerprint)
    if not checkpoint or _starts_over(saved_by(checkpoint), "the checkpoint was saved", config, folder, console):
        return None
    step: int = checkpoint["global_step"]
    return step


def _starts_over(
    versions: Sequence[Mapping[str, Any]], since: str, config: Config, folder: RunFolder, console: Console
) -> bool:
    """Whether to train anew what was made by code of these ``versions``, then put aside; else warn of a change.

    since: what code has changed since, for the sentence.
    """
    method, again = config.method.name, config.rerun
    if not is_other_code(versions, code_digest(config.method.target), unknown=again):
        return False
    if again:
        kept = folder.set_aside()
        sentence = f"{method} is trained again: what the run left is in {kept}"
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    else:
        changed = f"the code of {method} has changed since {since}"
        warn(console, f"{changed}; rerun=true trains it again and keeps what there is.")
    return bool(again)


def _other_versions(record: Record, config: Config) -> str:
    """Which protocols and baselines have another version than when the run was scored, in words; empty for none."""
    known = build_protocols(config, sys.maxsize, refit=True)  # whatever goes with many classes, too
    now = {protocol.name: protocol.version for protocol in known} | baselines.versions(config.dataset.size)
    before = record.baselines | record.protocols
    names = {**dict.fromkeys(now), **NAMES}
    return ", ".join(
        f"{names[name] or name} v{before[name]} (now v{version})"
        for name, version in now.items()
        if before.get(name, version) != version
    )
