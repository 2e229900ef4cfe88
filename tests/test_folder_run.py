"""A folder of one's own pictures, from files to the record."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_bench import load_encoder
from ssl_bench.cli import evaluate
from ssl_bench.config.compose import compose
from ssl_bench.encoders.score import score
from ssl_bench.training.run import run

WORDS = [
    *("dataset=folder", "dataset.size=8", "scale=smoke", "method=simclr", "batch_size=16", "epochs=1"),
    *("trainer.threads=1", "trainer.precision=32-true", "trainer.progress=false"),
]


def pictures(root: Path, classes: int) -> Path:
    random = np.random.default_rng(0)
    for number in range(60):
        folder = root / f"class {number % classes}" if classes else root
        folder.mkdir(parents=True, exist_ok=True)
        noise = random.integers(0, 80, (12, 9 + number % 7, 3)) + 60 * (number % 3)
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{number}.png")
    return root


def trained(root: Path, *overrides: str) -> dict[str, Any]:
    """The record, as it is written."""
    done = run(compose([*WORDS, f"dataset.root={root}", f"runs_dir={root.parent / 'runs'}", *overrides]))
    path = root.parent / "runs" / done.fingerprint
    assert load_encoder(path) is not None
    assert (path / "tsne.png").exists()
    found: dict[str, Any] = json.loads((path / "record.json").read_text())
    return found


@pytest.mark.slow
def test_a_folder_goes_to_the_record_without_its_place_and_with_what_was_left_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = pictures(tmp_path / "pictures", classes=3)
    (root / "class 1" / "0.jpg").write_bytes(b"broken")
    for number in range(20):
        Image.new("L", (9, 9), 77).save(root / "class 2" / f"same {number}.png")
    Image.new("L", (9, 9), 77).save(root / "class 0" / "same.png")
    (root / os.fsdecode(b"none [b] \xff")).mkdir()
    record = trained(root, "dataset.on_error=skip")
    shown = " ".join(capsys.readouterr().out.split())
    assert "images of folder, 1 epoch, 32-true" in shown
    assert "1 folder(s) of" in shown
    assert "[b] \\" in shown
    assert "such as class 2/same" in shown
    assert record["contradictory_train_images"] >= 1
    assert "training image(s) repeat an earlier one under another class, such as class 0/same.png and class 2/" in shown
    assert sum(record["skipped_images"].values()) == 1
    assert record["images"]["test"] + record["skipped_images"]["test"] == 16
    assert record["test_images_in_train"] > 1
    assert {record["results"][network]["knn1"] is not None for network in record["results"]} == {True}
    assert str(tmp_path) not in json.dumps(record)


@pytest.mark.slow
def test_a_folder_that_moves_keeps_the_names_of_its_runs_and_of_eleven_classes_top5_is_shown(tmp_path: Path) -> None:
    root = pictures(tmp_path / "pictures", classes=11)
    first = trained(root)
    for scores in first["results"].values():
        assert list(scores) == ["knn1", "knn200", "knn1_100labels", "linear", "linear_top5"]
        assert scores["linear"] <= scores["linear_top5"] <= 100
    assert first["protocols"]["linear_top5"] == 1
    assert trained(root.rename(tmp_path / "elsewhere")) == first


@pytest.mark.slow
def test_curves_of_a_second_dataset_end_at_the_figures_of_the_encoder_evaluated_on_it(tmp_path: Path) -> None:
    record = trained(pictures(tmp_path / "pictures", classes=3), "eval_on=digits", "evaluation.protocols=[knn1]")
    encoder = tmp_path / "runs" / record["fingerprint"]
    options = ["dataset=digits", "dataset.size=8", "scale=smoke", "evaluation.protocols=[knn1,linear]"]
    found = score(*evaluate.read([str(encoder), *options, f"runs_dir={tmp_path}", "trainer.threads=1"]))
    for protocol, percent in found.results["encoder"].items():
        assert record["curves"][f"digits:test/{protocol}/student"] == [[1, percent]]
    assert record["curves"]["test/knn1/student"] == [[1, record["results"]["student"]["knn1"]]]
    assert "digits:validation/knn1/student" in record["curves"]
    assert (encoder / "metrics.csv").read_text().splitlines()[0].count("digits:") == 4
    assert record["eval_on"]["dataset"] == "digits"
    assert record["eval_on"]["data_digest"] == found.data_digest != record["data_digest"]
    assert record["eval_on"]["images"] == found.images


@pytest.mark.slow
def test_pictures_without_classes_train_an_encoder_and_are_not_scored(tmp_path: Path) -> None:
    record = trained(pictures(tmp_path / "pictures", classes=0))
    assert record["images"] == {"pretraining": 60, "bank": 0, "probe": 0, "validation": 0, "test": 0}
    for scores in record["results"].values():
        assert set(scores.values()) == {None}
