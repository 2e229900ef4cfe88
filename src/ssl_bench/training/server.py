"""Processes on this machine that start at once.

Importing PyTorch and Lightning takes seconds. A server imports them once and forks every process that is asked for. It
computes nothing itself, so neither threads nor CUDA have begun when it forks, and what a run does ends with its
process.
"""

from __future__ import annotations

import multiprocessing
import pkgutil
from multiprocessing.context import BaseContext

from ssl_bench import methods


def server() -> BaseContext:
    """The context whose processes are forked from the server; where there is none, every process imports anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # All that a run's figures follow from, so that every run of a sweep is of the code that its record names.
    own = [f"ssl_bench.methods.{module.name}" for module in pkgutil.iter_modules(methods.__path__)]
    context.set_forkserver_preload(["ssl_bench.training.run", "ssl_bench.sweep.cell", *own])
    return context
