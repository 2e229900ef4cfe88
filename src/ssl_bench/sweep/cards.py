"""Which GPUs the runs of a sweep compute on: each its own, unless more runs at once are asked for than there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ssl_bench.config.compose import Config
from ssl_bench.sweep import local
from ssl_bench.sweep.cell import Outcome
from ssl_bench.sweep.grid import Entry


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
    return bool(config["trainer"]["accelerator"] != "cpu")


class Cards:
    """Lends cards, the least busy ones first."""

    def __init__(self, names: Sequence[str]) -> None:
        self.runs = dict.fromkeys(names, 0)  # at work on each

    def take(self, count: int) -> list[str]:
        """``count`` different cards, or as many as there are."""
        taken = sorted(self.runs, key=lambda name: self.runs[name])[:count]
        for name in taken:
            self.runs[name] += 1
        return taken

    def give_back(self, taken: Sequence[str]) -> None:
        for name in taken:
            self.runs[name] -= 1


class Job:
    """A run in a process that sees its own cards alone, which are free again when it has ended."""

    def __init__(self, start: Callable[[Entry, Sequence[str]], local.Job], entry: Entry, cards: Cards) -> None:
        self.cards = cards
        self.taken = cards.take(entry.config["trainer"]["devices"]) if _wants_card(entry.config) else []
        self.job = start(entry, self.taken)

    def poll(self) -> Outcome | None:
        outcome = self.job.poll()
        if outcome is not None:
            self.cards.give_back(self.taken)
            self.taken = []
        return outcome

    def signal(self, number: int) -> None:
        self.job.signal(number)

    def kill(self) -> None:
        self.job.kill()


def starter(names: Sequence[str]) -> Callable[[Entry], Job]:
    """What starts a run on this machine, whose GPUs are ``names``."""
    context, cards = local.server(), Cards(names)

    def start(entry: Entry, taken: Sequence[str]) -> local.Job:
        return local.Job(context, entry.config, entry.folder.path, taken)

    return lambda entry: Job(start, entry, cards)
