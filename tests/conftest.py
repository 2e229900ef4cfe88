"""Shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from program import Program, program_in


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Run ``python -m ssl_bench`` (or another module) in an empty folder and wait for it."""
    return program_in(tmp_path)
