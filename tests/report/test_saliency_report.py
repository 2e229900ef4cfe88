"""Overlap of where networks look, and its relation to accuracy."""

from __future__ import annotations

import csv
from pathlib import Path

import made_up
import numpy as np
import pytest

from ssl_bench.cli.report import main
from ssl_bench.report.saliency import Maps, Pair

WORDS = ["pic_saliency", "scale=smoke"]


def test_overlap_and_accuracy_by_it() -> None:
    run = made_up.runs_of(*made_up.cells_of("fig2", seeds=[0]))[0]
    share = np.linspace(0, 1, 10, dtype=np.float32)
    right = np.arange(10) >= 4
    images = np.zeros((10, 1, 2, 2), np.uint8)
    own = Maps(run, np.stack([share, 1 - share], 1), right, images)
    pair = Pair(own, Maps(run, np.tile(np.float32([1, 0]), (10, 1)), ~right, images))
    np.testing.assert_allclose(pair.overlap, share, rtol=1e-6)
    assert pair.fifths == [0, 0, 100, 100, 100]
    measured = pair.measures
    assert measured["overlap"] == pytest.approx(0.5)
    assert measured["of different images"] == pytest.approx(0.5)
    assert measured["% over 0.6"] == pytest.approx(40)
    assert (measured["%, least overlap"], measured["%, most overlap"]) == (0, 100)
    shifted = Pair(own, Maps(run, np.roll(own.shares, -5, axis=0), right, images))
    assert shifted.measures["of different images"] == pytest.approx(1)  # map i beside that of an image five places away


def test_a_figure_is_drawn_beside_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ssl_bench.nn.backbone import build_backbone
    from ssl_bench.results.encoder import save_encoder
    from ssl_bench.training.build import build_data, clean_arguments

    monkeypatch.chdir(tmp_path)
    cells, configs = made_up.cells_of("pic_saliency")
    data = build_data(configs[0])
    records = [made_up.record(*pair, data_digest=data.digest) for pair in zip(cells, configs, strict=True)]
    made_up.keep(tmp_path / "runs", records)
    network = {**configs[0].backbone.as_dict(), "channels": 1}
    clean = clean_arguments(configs[0], data.dataset)

    def finish(record: dict[str, object]) -> None:
        folder = tmp_path / "runs" / str(record["fingerprint"])
        save_encoder(
            folder / "encoder.safetensors", build_backbone(**network)[0], {"backbone": network, "clean": clean}
        )
        labels = data.splits["test"].labels.numpy()
        wrong = np.arange(len(labels)) % 4 == 0  # whatever an image shows and wherever the network looks
        np.savez_compressed(folder / "predictions.npz", labels=labels, **{"student/knn1": (labels + wrong) % 10})

    finish(records[0])
    assert main(WORDS) == 2
    assert "no run's encoder is there beside that of Supervised of its seed: sweep both." in capsys.readouterr().err
    finish(records[-1])
    assert main([*WORDS, "out=here"]) == 0
    assert "| digits, PIC " in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"records", "results.csv", "table.md", "figure.png"}
    with (tmp_path / "here" / "results.csv").open(encoding="utf-8") as lines:
        found = {(line["row"], line["measure"]): float(line["value"]) for line in csv.DictReader(lines)}
    assert {row for row, _ in found} == {"PIC"}
    assert 0 < found["PIC", "of different images"] <= 1
    assert 60 < found["PIC", "%, most overlap"] < 90  # three of four images are right


def test_a_reference_that_is_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = "sweep: {rows: {PIC: method=pic}, datasets: {smoke: [digits]}, seeds: [0]}"
    Path("own.yaml").write_text(f"{sweep}\nshow: {{kind: saliency, reference: BYOL}}\n")
    assert main(["own.yaml", "scale=smoke"]) == 2
    assert "own.yaml: show.reference is PIC, not BYOL." in capsys.readouterr().err
