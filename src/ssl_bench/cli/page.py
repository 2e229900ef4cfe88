"""python -m ssl_bench page: see ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_bench.config import experiments
from ssl_bench.config.settings import settings_text
from ssl_bench.entry import run_command
from ssl_bench.files import require_writable

HELP = """python -m ssl_bench page [EXPERIMENT ...] [key=value ...]

Makes a page of findings, tables, curves, costs and runs that opens in any browser, offline: out/index.html. It shows
the experiments that are named (or .yaml files, or folders with a README), without a name all that are committed, and
with runs_dir= alone the runs in that folder. watch=true serves it on this machine while runs finish."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the arguments, then read and write; returns the exit status."""
    return run_command(arguments, help_text, _page, interrupted="interrupted; what was written is whole.")


def _page(given: list[str]) -> None:
    from ssl_bench.page import contents, serve, write

    asked = contents.request(given)
    out = Path(asked.settings["out"])
    write.require_ours(out)
    stamp = serve.stamp_of(asked)  # before: a run that ends meanwhile is seen as news
    found = contents.contents(asked)
    require_writable(out, f"out={out}")
    if not asked.settings["watch"]:
        write.write(out, found)
    for sentence in found.skipped:
        print(f"skipped: {sentence}", file=sys.stderr)
    if found.skipped:
        print(f"skipped: {len(found.skipped)} in all; nothing was changed.", file=sys.stderr)
    print(f"{out / write.INDEX} shows {len(found.findings)} finding(s) and {len(found.runs)} run(s).")
    if asked.settings["watch"]:
        serve.serve(asked, found, stamp)


def help_text() -> str:
    """Usage, experiments, options."""
    return "\n".join([HELP, "", f"Experiments: {', '.join(experiments.names())}", "", *settings_text("page.yaml")])
