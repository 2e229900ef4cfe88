"""Many runs of one command line, ``-m``, by Hydra's launchers and sweepers."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException, MissingConfigException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from ssl_bench.config.compose import compose
from ssl_bench.config.parse import cells, combinations, parse, starting_points, tuned_options
from ssl_bench.config.schema import Config
from ssl_bench.entry import print_error
from ssl_bench.errors import NO_ROOM, SIGNALLED, UserError

Task = Callable[[Config], Any]  # what it returns may have to be pickled
Show = Callable[[Any, bool], object]
Conclude = Callable[[list[tuple[list[str], Any]], bool], object]


@dataclass(frozen=True)
class Outcome:
    """What became of one run; as a number, what a sweeper makes as large as it can."""

    overrides: list[str]
    status: int
    result: Any = None
    value: float | None = None

    def __float__(self) -> float:
        if self.value is None:
            raise ValueError("this run has no accuracy on validation images")
        return self.value


def multirun(
    task: Task,
    overrides: Sequence[str],
    *,
    check: Callable[[Config], object],
    value: Callable[[Any], float],
    show: Show,
    conclude: Conclude,
) -> int:
    """Check all runs, then have Hydra's launcher start them; the highest of their exit statuses.

    Args:
        check: raises UserError for a configuration that cannot be run; it sees all of them before one is run.
        value: what a sweeper maximises, of what ``task`` returned; UserError where there is no such number.
        show: sees what ``task`` returned, and whether options are tuned, among which test images must not choose.
        conclude: sees at the end the overrides of every run that did not fail, what ``task`` returned, and the same.
    """
    plugins = [override for override in overrides if re.match(r"\+*hydra[/.](launcher|sweeper)\b", override)]
    own = [override for override in overrides if override not in plugins]
    searching = any(re.match(r"\+*hydra/sweeper=(?!basic\b)", override) for override in plugins)
    runs = [list(starting_points(own))] if searching else list(cells(own))
    for run in runs:
        config = compose(run)
        if searching and not config.scale.hold_out_validation:
            raise UserError(
                f"hydra/sweeper chooses by validation images, and scale={config.scale.name} holds none out: "
                "search with scale.hold_out_validation=true."
            )
        check(config)
    tuning = searching or bool(tuned_options(combinations(own)))  # what rows of a named table set is compared
    job = partial(_job, task, value if searching else None, show, tuning)
    starter = _starter(job, own, plugins, searching=searching)
    done: list[JobReturn] = []
    if searching:
        launcher = getattr(starter, "sweeper", starter).launcher  # Hydra's plugins wrap what does their work
        launch = launcher.launch

        def launch_and_keep(*given: Any, **named: Any) -> Sequence[JobReturn]:
            returned: Sequence[JobReturn] = launch(*given, **named)
            done.extend(returned)
            return returned

        launcher.launch = launch_and_keep
        try:
            starter.sweep([str(override.input_line) for override in parse(own)])  # as Hydra's grammar has them
        except ValueError:  # a sweeper that has nothing to choose from
            if not done or not all(one.return_value.status for one in done):
                raise
    else:
        done.extend(starter.launch(runs, initial_job_idx=0))
    outcomes: list[Outcome] = [one.return_value for one in done]
    conclude([(outcome.overrides, outcome.result) for outcome in outcomes if not outcome.status], tuning)
    return max(outcome.status for outcome in outcomes)


def _job(task: Task, value: Callable[[Any], float] | None, show: Show, tuning: bool, _: DictConfig) -> Outcome:
    overrides = list(HydraConfig.get().overrides.task)
    try:
        result = task(compose(overrides))
        show(result, tuning)
        return Outcome(overrides, 0, result, value(result) if value else None)
    except UserError as error:
        status = print_error(error)
        if status > SIGNALLED or status == NO_ROOM:  # the runs that are left shall not start either
            sys.exit(status)
        return Outcome(overrides, status)
    except Exception:  # a sweep left alone over night shall not end with its first crash
        traceback.print_exc()
        return Outcome(overrides, 1)


def _starter(job: Callable[[DictConfig], Outcome], own: Sequence[str], plugins: list[str], *, searching: bool) -> Any:
    """Hydra's launcher, or its sweeper with one; what they write lies beside the runs."""
    GlobalHydra.instance().clear()
    asked = plugins
    if plugins:
        runs_dir = next(
            (override.partition("=")[2] for override in own if override.lstrip("+").startswith("runs_dir=")), "runs"
        )
        place = QuotedString(f"{runs_dir}/hydra", Quote.double).with_quotes()
        plugins = [f"hydra.sweep.dir={place}", *plugins]
    if any("hydra/sweeper=optuna" in override for override in plugins):
        plugins = ["hydra.sweeper.direction=maximize", *plugins]
    with hydra.initialize_config_module("ssl_bench.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        try:
            config = loader.load_configuration("config", plugins, RunMode.MULTIRUN)
            context = HydraContext(config_loader=loader, callbacks=Callbacks())
            kind = Plugins.instance().instantiate_sweeper if searching else Plugins.instance().instantiate_launcher
            return kind(hydra_context=context, task_function=job, config=config)
        except HydraException as error:
            missing = isinstance(error, MissingConfigException)
            why = "needs a plugin of Hydra that is not installed" if missing else "is refused by Hydra"
            raise UserError(f"{' '.join(asked)} {why} ({str(error).splitlines()[0]}).") from None
