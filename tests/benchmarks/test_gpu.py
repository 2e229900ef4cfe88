"""The script for a machine with a GPU: it runs here at toy sizes, outlives its sections, and carries CIFAR-10."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ssl_bench.data.readers import cifar

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FAKE = """
import os, time

def good(tell, until):
    tell("a", 1.5)
    tell("b", {"holds": True})

def fails(tell, until):
    tell("before", 1)
    raise ValueError("what went wrong")

def wrong(tell, until):
    tell("method", {"holds": False})

def dies(tell, until):
    os.kill(os.getpid(), 11)

def hangs(tell, until):
    child = os.fork()
    if child:
        tell("child", child)
    time.sleep(60)
"""
DRIVER = """
import sys
sys.path[:0] = sys.argv.pop(1).split(":")
import gpu
gpu.GRACE = 0.5
gpu.SECTIONS = {name: ("fake", 1) for name in ("good", "fails", "wrong", "dies", "hangs", "last")}
gpu.SECTIONS["late"] = ("fake", 10_000)
import fake
fake.last = fake.good
sys.exit(gpu.main())
"""


def sections(folder: Path, *names: str) -> tuple[int, dict[str, dict[str, object]]]:
    folder.joinpath("fake.py").write_text(FAKE)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, f"{FOLDER}:{folder}", *names],
        env={**os.environ, "OUT": str(folder), "TOTAL": "1000"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, json.loads(folder.joinpath("gpu.json").read_text())


def test_what_a_section_finds_is_kept_whatever_the_others_do(tmp_path: Path) -> None:
    status, found = sections(tmp_path)
    assert status == 1
    assert found["good"]["a"] == found["last"]["a"] == 1.5
    assert (found["fails"]["before"], found["fails"]["FAILED"]) == (1, "ValueError: what went wrong")
    assert found["dies"]["FAILED"] == "the process ended with -11"
    assert found["hangs"]["FAILED"] == "not over after 2 seconds"
    child = found["hangs"]["child"]
    assert not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes()
    assert "were left" in str(found["late"]["LEFT OUT"])


def test_a_call_for_some_sections_keeps_what_others_have_found(tmp_path: Path) -> None:
    assert sections(tmp_path, "good")[0] == 0
    status, found = sections(tmp_path, "wrong")
    assert status == 1
    assert set(found) == {"good", "wrong"}


def test_sections_are_functions_of_their_files_and_stand_in_the_readme() -> None:
    gpu = load("gpu")
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name, (file, _) in gpu.SECTIONS.items():
        assert f"\ndef {name}(tell: Tell, until: float)" in (FOLDER / f"{file}.py").read_text(encoding="utf-8")
        assert f"\n| {name} |" in readme


@pytest.mark.slow
def test_the_script_runs_on_a_cpu_at_toy_sizes_without_wandb(tmp_path: Path) -> None:
    tmp_path.joinpath("wandb.py").write_text("raise ImportError('as on a machine without it')")
    names = ["machine", "correctness", "resume", "speed", "views", "paths", "neighbours", "determinism", "training"]
    done = subprocess.run(
        ["bash", FOLDER / "gpu.sh", *names],
        env={
            **os.environ,
            "DEVICE": "cpu",
            "OUT": str(tmp_path / "out"),
            "DATA": str(tmp_path / "data"),
            "PYTHON": sys.executable,
            "PYTHONPATH": str(tmp_path),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert set(found) == set(names)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gpu.json", "gpu.log"]
    assert found["correctness"]["clbo"]["holds"]
    assert found["resume"]["simclr"]
    assert found["speed"]["clbo"]["step"] > 0


@pytest.mark.slow
def test_importing_the_sections_leaves_cuda_untouched_so_that_processes_can_be_forked() -> None:
    script = (
        "import torch, sys\n"
        "def touched(*_): raise SystemExit('CUDA was touched')\n"
        "torch.cuda._lazy_init = torch._C._cuda_getDeviceCount = torch.cuda.device_count = touched\n"
        "import gpu_right, gpu_speed"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=FOLDER,
        env={**os.environ, "DEVICE": "cuda", "PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_three_loads_are_all_of_cifar10(tmp_path: Path) -> None:
    names = cifar.CIFAR10.versions[-1].files
    package = tmp_path / "package"
    package.mkdir()
    for name in [*names, "README.md"]:
        (package / name).write_text(name)
    script = tmp_path / "repository" / "benchmarks" / "gpu.sh"
    script.parent.mkdir(parents=True)
    script.write_bytes((FOLDER / "gpu.sh").read_bytes())
    subprocess.run(["bash", script, "--carry", sys.prefix, package], check=True, capture_output=True)
    loads = sorted(script.parent.glob(".carry/cifar10-?/*"))
    assert sorted(path.name for path in loads) == sorted(names)
    assert {path.parent.name for path in loads} == {"cifar10-1", "cifar10-2", "cifar10-3"}
