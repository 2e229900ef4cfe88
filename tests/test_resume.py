"""A run that was killed and started again equals one that was not, bit for bit."""

from __future__ import annotations

import csv
import os
import pty
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from forked import Forked
from ssl_bench.config.compose import GROUPS

TINY = (
    "scale=smoke",
    "epochs=4",
    "batch_size=16",
    "subset=160",
    "trainer.checkpoint_seconds=0.001",
    "evaluation.protocols=[knn1,linear]",
    "eval_every=2",
    "trainer.threads=1",
)


def start(folder: Path, *overrides: str) -> Forked:
    folder.mkdir(exist_ok=True)
    return Forked(folder, *TINY, *overrides)


def finish(folder: Path, *overrides: str) -> Path:
    process = start(folder, *overrides)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    (run,) = (record.parent for record in (folder / "runs").glob("*/record.json"))
    return run


def stop_after(folder: Path, steps: int, number: signal.Signals, *overrides: str, epochs: int = 0) -> tuple[int, str]:
    """Signal the run once it was seen to save ``steps`` times after so many epochs; returns its status and output."""
    process = start(folder, *overrides)
    saves, seen = 0, 0
    deadline = time.monotonic() + 240
    while saves < steps and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)
        rows = [len(file.read_text().splitlines()) - 1 for file in folder.glob("runs/*/metrics.csv")]
        if max(rows, default=0) < epochs:
            continue
        for checkpoint in folder.glob("runs/*/checkpoints/last.ckpt"):
            try:
                now = checkpoint.stat().st_mtime_ns
            except FileNotFoundError:
                continue
            saves, seen = (saves + 1, now) if now != seen else (saves, seen)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def assert_same_run(a: Path, b: Path) -> None:
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()
    assert (a / "encoder.safetensors").read_bytes() == (b / "encoder.safetensors").read_bytes()
    mine, theirs = np.load(a / "predictions.npz"), np.load(b / "predictions.npz")
    assert mine.files == theirs.files
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine.files)
    weights, others = (torch.load(r / "checkpoints/last.ckpt", weights_only=True) for r in (a, b))
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(weights[key], others[key], rtol=0, atol=0)


# What else a method keeps between steps, in place of its defaults.
VARIANTS = {
    "swav": ("method.queue=32", "method.queue_from=2", "augment.groups.local.count=2"),
    "directpred": ("method.freq=3",),
    "byol": ("recipe=original", "trainer.accumulate=2"),
    "moby": ("method.momentum_schedule=cosine",),
    "pic": ("augment.groups.global.count=1", "order.name=window", "method.negatives=40"),
    "clbo": ("method.lookahead_batch=same_images", "method.teacher_buffers=ema", "optimizer.schedule=epoch"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS["method"])
def test_killed_in_mid_epoch_and_started_again_equals_uninterrupted(tmp_path: Path, name: str) -> None:
    overrides = (f"method={name}", *VARIANTS.get(name, ()))
    whole = finish(tmp_path / "whole", *overrides)
    chance = random.Random(name)
    broken = tmp_path / "broken"
    for _ in range(2 if name == "clbo" else 1):  # one of them resumes what has resumed
        status, output = stop_after(broken, chance.randint(2, 14), signal.SIGKILL, *overrides)
        assert status == -signal.SIGKILL, output  # it had not ended by itself
        assert len(list(broken.glob("runs/*/checkpoints/last.ckpt"))) == 1
    assert_same_run(whole, finish(broken, *overrides))
    with (whole / "metrics.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3, 4]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "steps", "epoch"),
    [(signal.SIGINT, 3, 1), (signal.SIGTERM, 3, 4), (signal.SIGHUP, 3, 1)],  # the last epoch ends, too
    ids=["SIGINT", "SIGTERM in the last epoch", "SIGHUP"],
)
def test_a_signal_saves_after_the_step_and_says_how_to_go_on(
    tmp_path: Path, undisturbed: Path, number: signal.Signals, steps: int, epoch: int
) -> None:
    status, output = stop_after(tmp_path, steps, number, epochs=epoch - 1)
    assert status == 128 + number, output
    assert f"stopped by {number.name} at epoch {epoch}" in output
    assert "the same command resumes" in output
    assert "Traceback" not in output
    assert not list(tmp_path.glob("runs/*/record.json"))
    assert_same_run(undisturbed, finish(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [(), ("trainer=ddp", "trainer.accelerator=cpu")], ids=["one process", "two ranks"]
)
def test_a_run_is_saved_when_its_terminal_is_closed(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    """As the terminal's session leader and first writer, it is sent SIGHUP, and can write to it no more."""
    often = ("epochs", "trainer.checkpoint_seconds", "eval_every")
    small = [override for override in TINY if override.partition("=")[0] not in often]
    small += [*(f"{key}=1000" for key in often), "monitor_every=1000", *overrides]
    terminal, end = pty.openpty()
    lead = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", lead, sys.executable, "-m", "ssl_bench", *small],
        cwd=tmp_path, stdin=end, stdout=end, stderr=end, start_new_session=True,
    )  # fmt: skip
    os.close(end)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("runs/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 65536)
    (saved,) = tmp_path.glob("runs/*/checkpoints/last.ckpt")  # after the first epoch
    before = torch.load(saved, weights_only=True)["global_step"]
    os.close(terminal)
    assert process.wait(timeout=120) == 128 + signal.SIGHUP
    assert torch.load(saved, weights_only=True)["global_step"] > before
