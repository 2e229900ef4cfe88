"""Shared by all tests."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from program import Program, program_in

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores; before anything imports torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if shutil.which("nvidia-smi") is None and not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run on the CPU; before anything imports Triton

START = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, help="leave out tests that would begin later after the start than that")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what a slow machine has no time for; the summary counts it."""
    minutes = item.config.getoption("--minutes")
    if minutes is not None and time.monotonic() > START + 60 * minutes:
        pytest.skip("no time left of --minutes")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Run ``python -m ssl_bench`` (or another module) in an empty folder and wait for it."""
    return program_in(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _conf_at_once() -> None:
    """The files of conf/, of which a process of the whole suite composes all."""
    from ssl_bench.config.composition import read_ahead
    from ssl_bench.config.options import GROUPS

    if "PYTEST_XDIST_WORKER" in os.environ:
        read_ahead((group, choice) for group in GROUPS for choice in GROUPS[group])


@pytest.fixture(autouse=True)
def _seed() -> None:
    """What a test draws at random does not depend on the tests that its process ran before."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of half the layers under the name of ResNet-18, where a test asks for any network."""
    from torchvision.models.resnet import BasicBlock

    from ssl_bench.nn import backbone

    monkeypatch.setitem(backbone.LAYERS, "resnet18", (BasicBlock, (1, 1, 1, 1)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one mebibyte."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs more rights than this machine gives")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # a run that has ended may not have let go yet


gc.disable()  # while PyTorch, Lightning and the tests are imported, of which nothing is garbage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests go first, so that none waits for them; then what --minutes must not skip."""
    longest = ("test_makefile.py", "test_readme.py")
    ranks = ("test_distributed.py", "test_launch.py", "test_resume.py", "test_norm.py")
    long = ("test_sweep.py", "test_learning.py", "test_bench.py", "test_check.py")
    items.sort(key=lambda item: [item.path.name not in names for names in (longest, ranks, long)])


def pytest_collection_finish() -> None:
    if scoring := sys.modules.get("ssl_bench.training.scoring"):
        scoring.PICTURE_IMAGES = 50  # type: ignore[attr-defined]  # a large picture takes a third of a small run
    gc.freeze()
    gc.enable()
