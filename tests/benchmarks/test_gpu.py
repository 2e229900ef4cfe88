"""The script for a machine with a GPU: it runs here at toy sizes, outlives its sections, and converts CIFAR-10."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from ssl_bench.data.readers import cifar

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- sections -------------------------------------------------------------------------------------

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
    names = ["machine", "correctness", "resume", "speed", "views", "neighbours", "determinism", "training"]
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


# -- CIFAR-10 -------------------------------------------------------------------------------------


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The converter, for twenty images a file, two of each class."""
    module = load("cifar10_png")
    monkeypatch.setattr(module, "IMAGES", 20)
    return module


def package(folder: Path, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Files laid out as the package's; returns all images, u8 [120, 32, 32, 3], and labels."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (120, 32, 32, 3), dtype=np.uint8)
    labels = np.concatenate([random.permutation(np.repeat(np.arange(10), 2)) for _ in range(6)])
    folder.mkdir()
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for number, name in enumerate(names):
        pixels = images[20 * number : 20 * number + 20].reshape(20, 1024, 3)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    folder.joinpath("train_lables.json").write_text(json.dumps(labels[:100].tolist()))
    folder.joinpath("test_lables.json").write_text(json.dumps(labels[100:].tolist()))
    return images, labels


def test_three_loads_become_the_dataset_that_was_drawn(
    convert: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = package(tmp_path / "package")
    train = images[:100].reshape(-1, 3) / 255
    monkeypatch.setattr(convert, "MEAN", train.mean(0))
    monkeypatch.setattr(convert, "STD", train.std(0))
    monkeypatch.setattr(convert, "EACH", (10, 2))
    convert.split(tmp_path / "package", tmp_path / "loads")
    for load_number in (2, 1, 3):
        convert.convert(tmp_path / "loads" / f"cifar10-{load_number}", tmp_path / "data")
    found = cifar.read10(tmp_path / "data")
    for split, rows in (("train", slice(0, 100)), ("test", slice(100, 120))):
        assert (found[split].images.permute(0, 2, 3, 1).numpy() == images[rows]).all()
        assert (found[split].labels.numpy() == labels[rows]).all()


def test_other_pictures_are_refused(convert: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path / "package")
    monkeypatch.setattr(convert, "EACH", (10, 2))
    convert.split(tmp_path / "package", tmp_path / "loads")
    for load_number in (1, 2):
        convert.convert(tmp_path / "loads" / f"cifar10-{load_number}", tmp_path / "data")
    with pytest.raises(SystemExit, match=r"channel means .* are not CIFAR-10's"):
        convert.convert(tmp_path / "loads" / "cifar10-3", tmp_path / "data")
