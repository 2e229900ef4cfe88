"""Shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from program import Program, program_in

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores; before anything imports torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Run ``python -m ssl_bench`` (or another module) in an empty folder and wait for it."""
    return program_in(tmp_path)
