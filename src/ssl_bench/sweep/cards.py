"""Which GPUs the runs of a sweep compute on: each its own, unless more runs at once are asked for than there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ssl_bench.config.schema import Config
from ssl_bench.sweep import local
from ssl_bench.sweep.cell import Outcome
from ssl_bench.sweep.grid import SweepRun


def found(configs: Sequence[Config]) -> list[str]:
    """The GPUs that runs of ``configs`` may use, as CUDA_VISIBLE_DEVICES names them; none where all run on the CPU."""
    return local.ask(visible) if any(_wants_card(config) for config in configs) else []


def visible() -> list[str]:
    """The GPUs that this process sees, by index, UUID or MIG name; for a process of its own, since that asks CUDA."""
    import torch

    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if named is None else [name.strip() for name in named.split(",")]
    return names[:count]  # CUDA ignores all from the first that it does not know


def _wants_card(config: Config) -> bool:
    return config.trainer.accelerator != "cpu"


class Cards:
    """Lends cards, the least busy ones first, and those on which a run failed only while there are not enough others.

    at_once: runs at once.
    """

    def __init__(self, names: Sequence[str], at_once: int) -> None:
        self.runs = dict.fromkeys(names, 0)  # at work on each
        self.lost: set[str] = set()
        self.at_once = at_once

    def take(self, count: int) -> list[str] | None:
        """``count`` different cards, or as many as there are; None where to wait for cards on which no run failed."""
        count = min(count, len(self.runs))
        names = [name for name in self.runs if name not in self.lost]
        if len(names) < count:
            names = list(self.runs)
        taken = sorted(names, key=lambda name: self.runs[name])[:count]
        share = -(-self.at_once * count // len(self.runs)) if taken else 0
        if self.lost and any(self.runs[name] >= share for name in taken):
            return None
        for name in taken:
            self.runs[name] += 1
        return taken

    def give_back(self, taken: Sequence[str], *, lost: bool) -> None:
        for name in taken:
            self.runs[name] -= 1
        if lost:
            self.lost.update(taken)


class Job:
    """A run in a process that sees its own cards alone, which are free again when it has ended."""

    def __init__(self, start: Callable[[SweepRun, Sequence[str]], local.Job], entry: SweepRun, cards: Cards) -> None:
        self.start = start
        self.entry = entry
        self.cards = cards
        self.taken: list[str] = []
        self.job: local.Job | None = None
        self.stopped = False  # before it began
        self._begin()

    def _begin(self) -> None:
        count = self.entry.config.trainer.devices if _wants_card(self.entry.config) else 0
        taken = self.cards.take(count)
        if taken is not None:
            self.taken, self.job = taken, self.start(self.entry, taken)

    def poll(self) -> Outcome | None:
        if self.stopped:
            return Outcome("interrupted")
        if self.job is None:
            self._begin()
        outcome = self.job.poll() if self.job else None
        if outcome is not None:
            self.cards.give_back(self.taken, lost=outcome.card_lost)
            self.taken = []
        return outcome

    def signal(self, number: int) -> None:
        if self.job:
            self.job.signal(number)
        else:
            self.stopped = True

    def kill(self) -> None:
        if self.job:
            self.job.kill()
        else:
            self.stopped = True


def starter(names: Sequence[str], at_once: int) -> Callable[[SweepRun], Job]:
    """What starts a run, of so many ``at_once``, on this machine, whose GPUs are ``names``."""
    context, cards = local.server(), Cards(names, at_once)

    def start(entry: SweepRun, taken: Sequence[str]) -> local.Job:
        return local.Job(context, entry.config, entry.folder.path, taken)

    return lambda entry: Job(start, entry, cards)
