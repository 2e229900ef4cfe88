"""python -m ssl_bench check: a certificate that several processes train what one trains, and a killed run resumes.

For every method, on real images, with different images on every rank and double precision:

- loss, gradient of every parameter and the whole state after an epoch of optimiser steps equal one process on the
  global batch: with norm layers that know no batch (``alone``), and with batch statistics over all ranks (``synced``);
- every rank holds the same state (``ranks``);
- a run that resumes from a checkpoint in mid-epoch ends bit for bit where an uninterrupted one does (``resume``);
- on CUDA, everything equals the CPU's on the same views: loss, gradient and state in double precision (``float64``),
  in float32, without TF32, the first gradient and the losses before and after its step (``float32``);
- how far the loss under bf16-mixed is from that in float32, at the first step and at most in the epoch (``bf16``),
  is shown and not judged.

On CUDA every process has a card of its own and NCCL where there are enough of them; else all share one, over gloo.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ssl_bench.conditions import CHECKED_BATCH
from ssl_bench.config.options import GROUPS, nearest
from ssl_bench.config.settings import items_of, near_or_all, read_settings, settings_text
from ssl_bench.entry import importing, run_command
from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.report.expected import Expected

LEARNS = """Each method is trained on one thread, from the given seed, in a folder that is removed afterwards: on digits
for some seconds, three minutes in all; on cifar10 for some minutes, about an hour in all. Its accuracy on test
images must lie where the committed records of experiments/learns put it. Ranges from few seeds are rough: where an
accuracy lies just outside, try another seed. The exit status is 1 if any lies outside.

Options, with the allowed values:"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the options, then the methods; 0 if all hold, 1 if one does not, 2 for a wrong option."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["learns"]:
        return run_command(given[1:], learns_help_text, lambda options: compare(*read_learns(options)))
    return run_command(given, help_text, lambda options: certify(*read(options)))


def help_text() -> str:
    """Usage, what is checked, options."""
    lines = [
        "python -m ssl_bench check [key=value ...]",
        "python -m ssl_bench check learns [key=value ...]   accuracies beside expected ranges; see --help",
        "",
        str(__doc__).partition("\n\n")[2],
    ]
    return "\n".join([*lines, "Options, with the allowed values:", *settings_text("check.yaml")])


def read(options: Sequence[str]) -> tuple[list[str], int, str]:
    """The methods, the number of processes and the device; UserError for any other option."""
    for option in options:
        if "=" not in option and (near := nearest(option, ["learns"])):
            raise UserError(f"there is no check {option}{near}")
    settings = read_settings("check.yaml", options)
    methods = GROUPS["method"] if settings["method"] == "all" else _methods_in(settings["method"])
    for name in methods:
        if name not in GROUPS["method"]:
            raise UserError(f"method={name} is unknown{near_or_all(name, GROUPS['method'])}")
    if CHECKED_BATCH % settings["world"]:
        raise UserError(f"world={settings['world']} does not divide the {CHECKED_BATCH} images of the checked batch.")
    return methods, settings["world"], settings["device"]


def _methods_in(text: str) -> list[str]:
    """The methods that are listed; UserError where none is."""
    found = items_of(text)
    if not found:
        raise UserError(f"method={text} names no method: leave it out for all of them.")
    return found


def learns_help_text() -> str:
    """Usage of `check learns`, what is compared, options."""
    return "\n".join(["python -m ssl_bench check learns [key=value ...]", "", LEARNS, *settings_text("learns.yaml")])


def read_learns(options: Sequence[str]) -> tuple[list[Expected], int, str]:
    """What is expected of the chosen methods, the seed and the folder of datasets; UserError for any other option."""
    settings = read_settings("learns.yaml", options)
    from ssl_bench.report.expected import ranges  # NumPy and SciPy take their time

    dataset = settings["dataset"]
    datasets = dict.fromkeys(one.dataset for one in ranges())
    if dataset not in datasets:
        raise UserError(f"no range is known for dataset={dataset}{near_or_all(dataset, datasets)}")
    found = [one for one in ranges() if one.dataset == dataset]
    known = dict.fromkeys(one.method for one in found)
    chosen = list(known) if settings["method"] == "all" else _methods_in(settings["method"])
    for name in chosen:
        if name not in known:
            raise UserError(f"no range is known for method={name}{near_or_all(name, known)}")
    return [one for one in found if one.method in chosen], settings["seed"], settings["data_dir"]


def compare(expected: Sequence[Expected], seed: int, data_dir: str) -> int:
    """Train every method, print its accuracies beside their ranges; 0 if all lie inside."""
    with importing():
        from ssl_bench.training import learns

    return learns.compare(expected, seed, data_dir)


def certify(methods: Sequence[str], world: int, device: str) -> int:
    """Train every method alone and in ``world`` processes, print the table; 0 if everything holds."""
    with importing():
        from ssl_bench.training import certificate

    return certificate.certify(methods, world, device)
