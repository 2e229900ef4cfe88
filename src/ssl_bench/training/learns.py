"""Does every method learn here what it has learned elsewhere? Short runs beside the ranges of committed records."""

from __future__ import annotations

import contextlib
import io
import shlex
import tempfile
from collections.abc import Sequence

import torch

from ssl_bench.config.compose import compose
from ssl_bench.errors import UserError
from ssl_bench.report.expected import WIDTH, Expected
from ssl_bench.results.record import Record
from ssl_bench.training.build import build_data
from ssl_bench.training.run import run


def compare(expected: Sequence[Expected], seed: int, data_dir: str) -> int:
    """Train every method, print its accuracies beside their ranges; 0 if all lie inside.

    Raises UserError where the images cannot be read.
    """
    held, record = True, None
    with tempfile.TemporaryDirectory(prefix="ssl_bench-") as folder:
        own = [
            f"seed={seed}",
            f"runs_dir={folder}",
            f"data_dir={data_dir}",
            "trainer.threads=1",
            "trainer.progress=false",
        ]
        build_data(compose([*shlex.split(expected[0].options), *own])).setup()  # what fails for all, fails once
        for method in dict.fromkeys(one.method for one in expected):
            of_method = [one for one in expected if one.method == method]
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    record = run(compose([*shlex.split(of_method[0].options), *own]))
            except UserError as error:
                print(f"✗ {method} failed: {error}", flush=True)
                held = False
                continue
            for one in of_method:
                percent = record.results[record.evaluated].get(one.protocol)
                line, inside = verdict(one, percent)
                known = one.seed0 if seed == 0 else None
                repeated = percent is not None and known is not None and abs(percent - known) < 1e-3
                print(f"{'✓' if inside else '✗'} {line}{'; as the committed run' if repeated else ''}", flush=True)
                held = held and inside
    print("Every method learns as expected." if held else advice(expected[0], record))
    return 0 if held else 1


def verdict(one: Expected, percent: float | None) -> tuple[str, bool]:
    """A line about an accuracy, and whether it lies in its range."""
    where = f"{one.method}, {one.protocol}"
    if percent is None:
        return f"{where}: not scored; expected {one.low:.1f} to {one.high:.1f}", False
    line = f"{where}: {percent:.1f}, expected {one.low:.1f} to {one.high:.1f}"
    beyond = max(one.low - percent, percent - one.high)
    if beyond <= 0:
        return line, True
    side = "above" if percent > one.high else "below"
    return (
        f"{line}: {beyond:.1f} points {side} it, {abs(percent - one.mean) / one.deviation:.1f} standard deviations "
        f"from the mean of {one.seeds} seeds ({WIDTH:g} are allowed)",
        False,
    )


def advice(one: Expected, here: Record | None) -> str:
    """What may be the cause, the likeliest first: ``here``, if a run has finished, beside where the ranges are from."""
    of_run = f"precision ({here.precision} on {here.device} here, {one.precision} on cpu there), " if here else ""
    return (
        f"Check first: {of_run}threads (1 here, {one.threads} there), torch ({torch.__version__} here, {one.torch} "
        "there); then other seeds (seed=1), and whether the package is the released one."
    )
