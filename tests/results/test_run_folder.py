"""The folder of one run: who may write there, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from ssl_bench.results import run_folder
from ssl_bench.results.run_folder import RunFolder


def test_what_another_process_has_taken_up_is_not_written_down_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "WAIT", 0.0)
    folder = RunFolder(tmp_path / "a")
    folder.path.mkdir()
    with FileLock(folder.path / ".lock"):
        assert folder.busy()
        folder.fail("it broke", "Traceback", {"seed": 0})
        assert [path.name for path in folder.path.iterdir()] == [".lock"]
    assert folder.failed() is None
    folder.fail("it broke", "Traceback", {"seed": 0})
    assert folder.failed() == "it broke"
    assert json.loads(folder.failure.read_text("utf-8")) == {
        "error": "it broke", "traceback": "Traceback", "config": {"seed": 0}
    }  # fmt: skip
