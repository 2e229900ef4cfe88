"""Which GPUs the runs of a sweep compute on: each its own, unless more runs at once are asked for than there are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence

from ssl_bench.config.schema import Config
from ssl_bench.sweep import local
from ssl_bench.sweep.grid import SweepRun
from ssl_bench.sweep.loop import Job
from ssl_bench.training.server import server


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
    """Starts runs that see their own cards alone: the least busy ones, and those on which a run failed only while there
    are not enough others.

    at_once: runs at once; begin: starts a run that sees the cards of these names.
    """

    def __init__(self, names: Sequence[str], at_once: int, begin: Callable[[SweepRun, Sequence[str]], Job]) -> None:
        self.names = list(names)
        self.at_once = at_once
        self.begin = begin
        self.at_work: list[tuple[Job, list[str]]] = []
        self.lost: set[str] = set()

    def start(self, entry: SweepRun) -> Job | None:
        """The run on as many different cards as it asks for or there are; None where to wait for such as are whole."""
        for job, cards in self.at_work:
            if job.outcome and job.outcome.card_lost:
                self.lost.update(cards)
        self.at_work = [(job, cards) for job, cards in self.at_work if job.outcome is None]
        busy = Counter(name for _, cards in self.at_work for name in cards)
        count = min(entry.config.trainer.devices if _wants_card(entry.config) else 0, len(self.names))
        whole = [name for name in self.names if name not in self.lost]
        taken = sorted(whole if len(whole) >= count else self.names, key=lambda name: busy[name])[:count]
        share = -(-self.at_once * count // len(self.names)) if taken else 0
        if self.lost and any(busy[name] >= share for name in taken):
            return None
        self.at_work.append((self.begin(entry, taken), taken))
        return self.at_work[-1][0]


def starter(names: Sequence[str], at_once: int) -> Callable[[SweepRun], Job | None]:
    """What starts a run, of so many ``at_once``, on this machine, whose GPUs are ``names``."""
    context = server()
    return Cards(names, at_once, lambda entry, cards: local.Job(context, entry.config, entry.folder.path, cards)).start
