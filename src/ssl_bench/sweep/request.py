"""What a sweep is asked for: the table or figure, which of its runs, and the options of all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ssl_bench import conditions
from ssl_bench.config import experiments
from ssl_bench.config.compose import compose_cells
from ssl_bench.config.experiments import Cell
from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.machine import cores
from ssl_bench.report.records import require_distinct
from ssl_bench.results.fingerprint import configuration_key
from ssl_bench.training import preflight

FILE = "sweep.yaml"


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    name: str
    settings: dict[str, Any]
    cells: list[Cell]
    configs: list[Config]  # of the cells
    set_for_all: list[str]
    cards: list[str] = field(default_factory=list)  # GPUs of this machine, where runs use them

    @property
    def jobs(self) -> int:
        """Runs at once: as many as asked for, else all under slurm, else as many as there are GPUs for, else one."""
        if self.settings["jobs"]:
            return int(self.settings["jobs"])
        if self.settings["launcher"] == "slurm":
            return len(self.cells)
        return max(1, len(self.cards) // max(config.trainer.devices for config in self.configs))


def read(arguments: Sequence[str], *files: str) -> Request:
    """The runs that ``arguments`` name, composed; options stand in ``sweep.yaml`` and in ``files`` of conf/.

    Raises:
        UserError: for any argument that is wrong, in one sentence.
    """
    names = [argument for argument in arguments if "=" not in argument]
    if len(names) != 1:
        known = ", ".join(experiments.names())
        raise UserError(
            f"{'no table or figure is' if not names else ' '.join(names) + ' are'} named: choose one of {known}."
        )
    experiment = experiments.find(names[0])
    experiments.require_runs(experiment)
    settings, set_for_all = experiments.read_overrides(
        (argument for argument in arguments if "=" in argument), FILE, *files
    )
    cells = experiment.cells(
        settings["scale"], **{key: settings[key] for key in experiments.LISTS}, overrides=set_for_all
    )
    configs = compose_cells(cells)
    config_of = dict(zip(cells, configs, strict=True))
    experiments.of_each(cells, lambda cell: preflight.check(config_of[cell]))
    if not any(override.startswith("evaluation.") for override in set_for_all):  # else what is shown is no matter
        experiments.require_scored(experiment, configs)
    require_distinct(cells, configs)
    distinct: dict[tuple[object, ...], Cell] = {}  # at several positions of a grid may be one run
    for cell, config in config_of.items():
        chosen = config.trainer
        computed = (chosen.precision, chosen.sync_batchnorm, chosen.accelerator)  # count, too, but are settled later
        distinct.setdefault((configuration_key(config.as_dict()), *computed), cell)
    cells = list(distinct.values())
    configs = [config_of[cell] for cell in cells]
    configs = [config.changed({"trainer.progress": False}) for config in configs]  # it is no part of a run's identity
    if settings["launcher"] == "slurm":
        configs = [_settled_for_jobs(config, settings) for config in configs]
    return Request(experiment.name, settings, cells, configs, set_for_all)


def _settled_for_jobs(config: Config, settings: Mapping[str, Any]) -> Config:
    """With what this machine cannot know of those that jobs come to; UserError where it must be set by the user."""
    chosen = config.trainer
    if chosen.precision == "auto":
        raise UserError(
            "launcher=slurm: set trainer.precision=bf16-mixed or 32-true, for this machine does not know what is "
            "fastest (auto) on those that the jobs will come to."
        )
    if chosen.accelerator == "auto":
        if config.scale.name == "paper" and not settings["slurm.gpus"]:
            raise UserError(
                "launcher=slurm scale=paper: without a GPU a run takes weeks; set slurm.gpus=1, or "
                "trainer.accelerator=cpu to train on CPUs all the same."
            )
        config = config.changed({"trainer.accelerator": "gpu" if settings["slurm.gpus"] else "cpu"})
    if config.trainer.accelerator == "gpu" and settings["slurm.gpus"] < chosen.devices:
        raise UserError(
            f"launcher=slurm: a run on {chosen.devices} GPU(s) needs slurm.gpus={chosen.devices}, not "
            f"{settings['slurm.gpus']}."
        )
    return config


def placed(asked: Request, cards: Sequence[str]) -> Request:
    """The same with the GPUs of this machine, and the cores divided among the runs at once."""
    asked = replace(asked, cards=list(cards))
    if any(override.startswith("trainer.threads=") for override in asked.set_for_all):
        return asked
    if asked.settings["launcher"] == "slurm":
        shared = asked.settings["slurm.cpus"]
    elif asked.jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        shared = cores() // asked.jobs
    else:
        return asked
    configs = [
        config.changed({"trainer.threads": max(1, shared // config.trainer.devices)}) for config in asked.configs
    ]
    return replace(asked, configs=configs)


def require_cards(asked: Request) -> None:
    """UserError if the GPUs of this machine are fewer than a run asks for, or a run at scale=paper would have none."""
    if asked.settings["launcher"] == "slurm":
        return
    for config in asked.configs:
        chosen = config.trainer
        if chosen.accelerator == "cpu":
            continue
        if chosen.accelerator == "gpu" or asked.cards:
            conditions.require_cards(chosen.devices, len(asked.cards))
        if not asked.cards:
            conditions.require_time_on_cpu(config.scale.name, "python -m ssl_bench plan measures how long")
