"""Maps of features, and measures of how far classes are apart."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import made_up
import numpy as np
import pytest
import torch

from ssl_bench.cli.report import main
from ssl_bench.encoders.of_runs import features_of_runs
from ssl_bench.errors import UserError
from ssl_bench.report import feature_maps
from ssl_bench.report.feature_maps import Features
from ssl_bench.report.records import match, read

WORDS = ["fig8", "scale=smoke", "methods=simclr,clbo"]


def features(points: list[list[float]], labels: list[int]) -> Features:
    run = made_up.runs_of(*made_up.cells_of("fig2", seeds=[0]))[0]
    return Features(run, np.array(points, np.float32), np.array(labels), "ab")


def test_measures_are_those_of_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_maps, "NEIGHBOURS", 1)
    points = [[1.0, 0.0], [9.0, 0.9], [0.0, 1.0], [0.1, 1.0], [0.5, 2.0]]
    found = features(points, [0, 0, 1, 1, 0]).measures  # the last one lies in the other class
    assert found["neighbourhood hit, %"] == pytest.approx(80.0)

    def cosine(a: int, b: int) -> float:
        one, other = np.array(points[a]), np.array(points[b])
        return 1 - float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    silhouettes = []
    for a, label in enumerate([0, 0, 1, 1, 0]):
        own = np.mean([cosine(a, b) for b in range(5) if b != a and [0, 0, 1, 1, 0][b] == label])
        other = np.mean([cosine(a, b) for b in range(5) if [0, 0, 1, 1, 0][b] != label])
        silhouettes.append((other - own) / max(own, other))
    assert found["silhouette"] == pytest.approx(np.mean(silhouettes), abs=1e-6)


@pytest.mark.parametrize("labels", [[], [1, 1, 1], [0, 1, 2]])
def test_without_two_classes_there_is_no_silhouette(labels: list[int]) -> None:
    found = features([[1.0, float(label)] for label in labels], labels)
    with pytest.raises(UserError, match=rf"classes of its {len(labels)} labelled test images are {len(set(labels))},"):
        feature_maps.require_classes([found])


def test_a_figure_is_drawn_from_the_encoders_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ssl_bench.nn.backbone import build_backbone
    from ssl_bench.results.encoder import save_encoder
    from ssl_bench.training.build import build_data, clean_arguments

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(feature_maps, "IMAGES", 40)
    cells, configs = made_up.cells_of("fig8", methods=["simclr", "clbo"])
    data = build_data(configs[0])
    records = [made_up.record(*pair, data_digest=data.digest) for pair in zip(cells, configs, strict=True)]
    made_up.keep(tmp_path / "runs", records)
    assert main(WORDS) == 2
    assert capsys.readouterr().err.startswith(
        "ssl_bench: fig8 is drawn from encoders, which are in the runs' folders and not among committed records: none "
        "of the 2 is there; python -m ssl_bench sweep fig8 scale=smoke methods=simclr,clbo makes them."
    )
    network = {**configs[0].backbone.as_dict(), "channels": 1}
    clean = clean_arguments(configs[0], data.dataset)
    file = tmp_path / "runs" / records[0]["fingerprint"] / "encoder.safetensors"
    torch.manual_seed(cells[0].seed)
    save_encoder(file, build_backbone(**network)[0], {"backbone": network, "clean": clean})
    assert main([*WORDS, "out=here"]) == 0
    shown = capsys.readouterr().out
    assert "Encoders of 1 of 2 runs are here." in shown
    assert "– (0/1)" in shown
    baselines = (("random", "random weights"), ("pixels", "raw pixels"))
    for network, label in baselines:
        (row,) = [line for line in shown.splitlines() if line.startswith(f"| digits, {label}")]
        mean = np.mean([one["results"][network]["knn1"] for one in records])
        assert f" {mean:.1f} |" in row
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"records", "results.csv", "table.md", "figure.png"}
    with (tmp_path / "here" / "results.csv").open(encoding="utf-8") as lines:
        found = {(line["row"], line["measure"]): float(line["value"]) for line in csv.DictReader(lines)}
    measures = ("silhouette", "neighbourhood hit, %", "knn1, %")
    rows = ("SimCLR", *(label for _, label in baselines))
    assert list(found) == [(row, name) for row in rows for name in measures]
    for network, label in baselines:
        (row,) = [line for line in shown.splitlines() if line.startswith(f"| digits, {label}")]
        assert f" {found[label, 'silhouette']:.3f} | " in row
        assert found[label, "knn1, %"] == pytest.approx(records[0]["results"][network]["knn1"], rel=1e-5)
    for name in measures[:2]:  # the encoder here has the weights that its run began with
        assert found["SimCLR", name] == pytest.approx(found["random weights", name], rel=1e-5)
    assert 20 < found["SimCLR", "neighbourhood hit, %"] < found["raw pixels", "neighbourhood hit, %"] < 100
    shutil.copy(file, tmp_path / "runs" / records[1]["fingerprint"])
    runs = match(cells, configs, read(tmp_path / "runs", None))
    assert [one.network for one in features_of_runs(runs, None)] == [None, None, "random", "pixels"]  # each once
