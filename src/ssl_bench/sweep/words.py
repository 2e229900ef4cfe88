"""The words of a sweep: the table or figure, which of its runs, and what is said to all of them."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_bench import experiments, preflight
from ssl_bench.config import Config, compose_cells
from ssl_bench.errors import UserError
from ssl_bench.experiments import Cell
from ssl_bench.machine import cores
from ssl_bench.options import GROUPS, comments, nearest, options_in
from ssl_bench.report.configurations import configurations, remembered

FILE = "sweep.yaml"
MANY = {"seed": "seeds", "method": "methods", "dataset": "datasets"}  # of one run → of a sweep


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    name: str
    settings: dict[str, Any]
    cells: list[Cell]
    configs: list[Config]  # of the cells

    @property
    def jobs(self) -> int:
        """Runs at once."""
        return self.settings["jobs"] or (len(self.cells) if self.settings["launcher"] == "slurm" else 1)


def read(words: Sequence[str], *files: str) -> Asked:
    """The runs that ``words`` name, composed; options stand in ``sweep.yaml`` and in ``files`` of conf/.

    Raises:
        UserError: for any word that is wrong, in one sentence.
    """
    names = [word for word in words if "=" not in word]
    if len(names) != 1:
        known = ", ".join(experiments.names())
        raise UserError(
            f"{'no table or figure is' if not names else ' '.join(names) + ' are'} named: say one of {known}."
        )
    experiment = experiments.find(names[0])
    settings, said_to_all = experiments.read_words((word for word in words if "=" in word), FILE, *files)
    _check_keys(said_to_all, {key for file in (FILE, *files) for key in options_in(file)})
    cells = experiment.cells(
        settings["scale"],
        methods=settings["methods"],
        datasets=settings["datasets"],
        seeds=settings["seeds"],
        words=said_to_all,
    )
    configs = copy.deepcopy(configurations(cells, compose_cells, remembered()))  # what is remembered is shared
    asked = Asked(experiment.name, settings, cells, configs)
    if settings["launcher"] == "slurm" and any(config["trainer"]["precision"] == "auto" for config in configs):
        raise UserError(
            "launcher=slurm: say trainer.precision=bf16-mixed or 32-true, for this machine does not know what is "
            "fastest (auto) on those that the jobs will come to."
        )
    for config in asked.configs:
        preflight.check(config)
        _share_the_machine(config, asked, said_to_all)
    return asked


def _check_keys(words: Iterable[str], own: set[str]) -> None:
    tops = {*GROUPS, *(key for key in comments("config.yaml") if "." not in key)}
    for word in words:
        key = word.partition("=")[0].lstrip("+")
        if key in MANY:
            raise UserError(f"{word} is said to one run: say {MANY[key]}={word.partition('=')[2]} to a sweep.")
        if key == "experiment":
            raise UserError(f"{word} is not said to a sweep: name the table or figure alone.")
        if "." not in key and "/" not in key and key not in tops:
            hint = nearest(key, [*own, *tops]) or "; --help lists those of a sweep."
            raise UserError(f"option {key} is unknown{hint}")


def _share_the_machine(config: Config, asked: Asked, words: Sequence[str]) -> None:
    """No progress bar, and a share of the cores; neither changes which run it is."""
    chosen = config["trainer"]
    chosen["progress"] = False
    if any(word.lstrip("+").startswith("trainer.threads=") for word in words):
        return
    if asked.settings["launcher"] == "slurm":
        chosen["threads"] = max(1, asked.settings["slurm.cpus"] // chosen["devices"])
    elif asked.jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        chosen["threads"] = max(1, cores() // (asked.jobs * chosen["devices"]))
