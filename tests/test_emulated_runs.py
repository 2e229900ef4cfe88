"""Whole runs on the emulated device: no tensors of two devices meet, and float32 results are those of the CPU."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from benchmarks.synthetic import configuration, in_catalog, synthetic_dataset
from safetensors.torch import load_file

from emulated import NAME, counting, emulated, emulation
from ssl_bench import load_encoder
from ssl_bench.callbacks.checkpointer import Interrupted
from ssl_bench.cli import embed, evaluate
from ssl_bench.config.compose import compose
from ssl_bench.config.options import GROUPS
from ssl_bench.config.schema import Config
from ssl_bench.config.settings import read_settings
from ssl_bench.encoders.embed import embed as embed_folder
from ssl_bench.encoders.score import score
from ssl_bench.plan.measure import measure
from ssl_bench.results.record import Record
from ssl_bench.training.run import run
from test_folder_run import WORDS as FOLDER
from test_folder_run import pictures

TIMES = ("seconds", "images_per_second", "session_seconds")
SMALL = ("batch_size=16", "trainer.progress=false", "trainer.precision=32-true")
DIGITS = ("dataset=digits", "scale=smoke", "subset=160", "epochs=2", *SMALL)
KNN1 = "evaluation.protocols=[knn1]"  # where it is training that matters
CROPS = ("augment.groups.local.count=2", "augment.groups.local.size=8")


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    with emulation():
        yield


class Stop(pl.Callback):
    """Ctrl-C in the middle of an epoch."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 14:
            os.kill(os.getpid(), signal.SIGINT)


def require_equal_runs(folder: Path, config: Config, *, interrupted: bool = False) -> Record:
    """Run ``config`` here and there; all that the runs leave behind agrees. Returns the record from there.

    interrupted: there it stops in the middle of an epoch and resumes.
    """
    here = run(replace(config, runs_dir=str(folder / "cpu")))
    config = emulated(replace(config, runs_dir=str(folder / NAME)))
    with counting() as counts:
        if interrupted:
            with pytest.raises(Interrupted):
                run(config, [Stop()])
        there = run(config)
    assert sum(counts.values()) > 1000  # it was there
    for field in ("results", "curves", "notes", "warnings", "student_steps"):
        assert getattr(there, field) == getattr(here, field)
    require_equal_files(*(folder / name / record.fingerprint for name, record in (("cpu", here), (NAME, there))))
    return there


def require_equal_files(one: Path, other: Path) -> None:
    weights, same = (load_file(path / "encoder.safetensors") for path in (one, other))
    assert list(weights) == list(same)
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    predictions, others = (np.load(path / "predictions.npz") for path in (one, other))
    assert predictions.files == others.files
    assert all((predictions[name] == others[name]).all() for name in predictions.files)
    for row, again in zip(figures(one), figures(other), strict=True):
        assert row == pytest.approx(again, rel=1e-6)  # torch computes singular values there by another routine
    assert (other / "tsne.png").stat().st_size > 1000


def figures(run_folder: Path) -> list[dict[str, float]]:
    """metrics.csv with its collapse panel, without times."""
    with (run_folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert "collapse/rankme" in rows[0]
    return [{name: float(value) for name, value in row.items() if not name.endswith(TIMES)} for row in rows]


def test_a_run_on_an_accelerator_gives_the_results_of_the_cpu(tmp_path: Path) -> None:
    """By the whole ResNet-18; the slow tests below train half of its layers."""
    overrides = ("dataset=digits", "scale=smoke", "subset=64", "epochs=1", *SMALL)
    record = require_equal_runs(tmp_path, compose([*overrides, "method=clbo"]))
    assert set(record.results["teacher"]) == {"knn1", "knn200", "knn1_100labels", "linear"}


@pytest.mark.slow
@pytest.mark.usefixtures("few_layers")
@pytest.mark.parametrize("method", GROUPS["method"])
def test_every_method_runs_on_an_accelerator_as_on_the_cpu(tmp_path: Path, method: str) -> None:
    """Bit for bit, though the run there is stopped and resumes."""
    require_equal_runs(tmp_path, compose([*DIGITS, f"method={method}"]), interrupted=True)


@contextmanager
def colour(*overrides: str) -> Iterator[dict[str, Any]]:
    dataset = synthetic_dataset(16 * 8, 3, 16)
    with in_catalog(dataset):
        yield configuration(dataset, "subset=null", "epochs=2", "backbone.width=4", *SMALL, *overrides, scale="smoke")


@pytest.mark.slow
@pytest.mark.usefixtures("few_layers")
@pytest.mark.parametrize("method", ["simclr", "clbo", "swav", "pic"])  # the others' steps are test_step_counts'
def test_small_crops_in_colour_on_an_accelerator_are_those_of_the_cpu(tmp_path: Path, method: str) -> None:
    with colour(f"method={method}", "dataset.resident=false", KNN1, *CROPS) as config:
        require_equal_runs(tmp_path, config)


@pytest.mark.slow
@pytest.mark.usefixtures("few_layers")
@pytest.mark.parametrize(("classes", "resident"), [(3, "true"), (3, "false"), (0, "true")])
def test_packed_pictures_on_an_accelerator_are_those_of_the_cpu(tmp_path: Path, classes: int, resident: str) -> None:
    root = pictures(tmp_path / "pictures", classes=classes)
    require_equal_runs(tmp_path, compose([*FOLDER, f"dataset.root={root}", f"dataset.resident={resident}"]))


@pytest.mark.slow
@pytest.mark.usefixtures("few_layers")
def test_an_accelerator_resumes_what_a_cpu_began(tmp_path: Path) -> None:
    config = compose([*DIGITS, "method=moco", f"runs_dir={tmp_path}"])
    with pytest.raises(Interrupted):
        run(config, [Stop()])
    assert run(emulated(config)).student_steps == 20


@pytest.mark.slow
@pytest.mark.usefixtures("few_layers")
def test_commands_on_an_accelerator_give_the_results_of_the_cpu(tmp_path: Path) -> None:
    with colour("method=simclr") as config:
        trained = run(replace(config, runs_dir=str(tmp_path / "runs")))
    encoder = tmp_path / "runs" / trained.fingerprint

    network, images = load_encoder(encoder), torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        expected = network(images)
        assert torch.equal(network.to(NAME)(images.to(NAME)).cpu(), expected)

    file, evaluated, chosen, settings = evaluate.read(
        [str(encoder), "dataset=digits", "scale=smoke", "subset=160", f"runs_dir={tmp_path}"]
    )
    here, there = (score(file, on, chosen, settings) for on in (evaluated, emulated(evaluated)))
    assert there.results == here.results

    root, features = pictures(tmp_path / "pictures", classes=0), []
    for accelerator in ("cpu", NAME):
        options = {**read_settings(embed.FILE, [f"out={tmp_path / accelerator}.npy"]), "accelerator": accelerator}
        embed_folder(encoder, root, options)
        features.append(np.load(tmp_path / f"{accelerator}.npy"))
    assert (features[0] == features[1]).all()


@pytest.mark.slow
@pytest.mark.usefixtures("few_layers")
def test_a_plan_measures_a_run_on_an_accelerator() -> None:
    measured = measure(emulated(compose([*DIGITS, "method=simclr"])), {})
    assert min(measured.step, measured.save, measured.evaluation.final) > 0
