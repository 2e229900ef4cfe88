"""python -m ssl_bench evaluate: any encoder on any dataset, under the protocols of a run.

RUN_OR_FILE is a run's folder, its encoder.safetensors, or a state dict of torchvision, timm or Lightning (.pth, .pt,
.ckpt, .safetensors), wrapped and prefixed as it may be. A file that is not ours is taken for a ResNet if its names and
shapes are those of one; otherwise backbone.name=timm/<model> names the network. Every tensor of the file and every
parameter of the network is accounted for, and a file that does not fit is refused. Nothing in it is run.

datasets=cifar100,stl10,folder:pictures evaluates on several, one after another, and ends with one table of them all.

The table holds the encoder, the same network with random weights (of seed=) and raw pixels; the record, as JSON, is
written beside the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_bench.conditions import require_protocols
from ssl_bench.config.compose import compose
from ssl_bench.config.options import GROUPS
from ssl_bench.config.parse import parse
from ssl_bench.config.schema import Config
from ssl_bench.config.settings import items_of, positional, require_once, settings_text, split_options
from ssl_bench.data.facts import require_root
from ssl_bench.entry import importing, run_command
from ssl_bench.errors import UserError

FILE = "evaluate.yaml"
# What an evaluation reads of a run's options; a trailing dot means all below. All else is training's.
READ = (
    "dataset",
    "dataset.",
    "scale",
    "scale.hold_out_validation",
    "backbone",
    "backbone.",
    "evaluation",
    "evaluation.protocols",
    "evaluation.batch_size",
    "evaluation.memory",
    "evaluation.linear.",
    "evaluation.finetune.",
    "subset",
    "labels",
    "seed",
    "data_dir",
    "runs_dir",
    "trainer.accelerator",
    "trainer.threads",
)
# And not read below dataset and backbone.
TRAINING = ("dataset.epochs", "dataset.queue", "dataset.window", "dataset.stem", "backbone.pretrained")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the arguments, then evaluate; returns the exit status."""

    def work(arguments: list[str]) -> None:
        given = [read(of_one) for of_one in each_dataset(arguments)]
        with importing():
            from ssl_bench.encoders.score import score_all  # PyTorch takes seconds, a mistake is answered before

        score_all(given)

    return run_command(arguments, help_text, work, interrupted="interrupted; nothing was written.")


def help_text() -> str:
    """Usage, what it does, options."""
    usage = "python -m ssl_bench evaluate RUN_OR_FILE dataset=... [key=value ...]"
    lines = [usage, "", str(__doc__).partition("\n\n")[2], "Options of its own, with the allowed values:"]
    taken = ", ".join(f"{key}*" if key.endswith(".") else key for key in READ)
    return "\n".join([*lines, *settings_text(FILE), "", f"And those of python -m ssl_bench (its --help): {taken}."])


def each_dataset(arguments: Sequence[str]) -> list[list[str]]:
    """The arguments for each of ``datasets=``; as they are where it is not set.

    Raises UserError where ``dataset`` is set, too, or ``out`` is no folder, which holds the record of each.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        if "=" in argument:
            require_once(given, argument)
    names = [name for name in items_of(given.get("datasets", "").partition("=")[2]) if name != "null"]
    if not names:
        return [list(arguments)]
    if "dataset" in given:
        raise UserError(f"{given['dataset']} and datasets= are both set: leave one of them out.")
    if len(names) > 1 and "out" in given and not Path(given["out"].partition("=")[2]).is_dir():
        raise UserError(
            f"{given['out']} is not a folder; several datasets have a record each: set out= to a folder that exists."
        )
    others = [argument for argument in arguments if not argument.startswith("datasets=")]
    found = []
    for name in dict.fromkeys(names):
        kind, colon, folder = name.partition(":")
        if colon and kind != "folder":
            raise UserError(f"datasets={name}: only folder:PATH has a path.")
        found.append([*others, f"dataset={kind}", *([f"dataset.root={folder}"] if colon else [])])
    return found


def read(arguments: Sequence[str]) -> tuple[Path, Config, set[str], dict[str, Any]]:
    """The encoder, the configuration, which of its options were set, and the options of our own.

    Raises UserError for an argument that is unknown, wrong, or makes no sense here.
    """
    (encoder,), options = positional(arguments, "a run's folder or a file of weights")
    if not Path(encoder).exists():
        raise UserError(f"{encoder} does not exist: give a finished run's folder or a file of weights.")
    settings, others = split_options(FILE, options)
    config = compose(others)
    given = {override.key_or_group for override in parse(others)}
    for key in sorted(given):
        if key in TRAINING or not any(key == known or (known[-1] == "." and key.startswith(known)) for known in READ):
            raise UserError(f"{key} makes no sense here, where nothing is trained: leave it out.")
    if "dataset" not in given:
        raise UserError(
            f"set the dataset, as in dataset=digits, or several by datasets=; known are {', '.join(GROUPS['dataset'])}."
        )
    require_root(config.dataset.name, config.dataset.options)
    scored = config.evaluation
    require_protocols(scored.protocols, scored.linear.learning_rates, scored.finetune.learning_rates)
    return Path(encoder), config, given, settings
