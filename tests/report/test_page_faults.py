"""What is wrong in one place of a page, or asked for wrongly, costs nothing but that."""

from __future__ import annotations

import http.client
import io
import os
import re
import shutil
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from made_up import PROTOCOLS, keep, record, records_of
from test_page import data, make, named, page

from ssl_bench.batch import Batch, Place
from ssl_bench.cli.page import main
from ssl_bench.config.compose import compose
from ssl_bench.config.experiments import Cell
from ssl_bench.data.images import Images
from ssl_bench.evaluation.features import extract
from ssl_bench.nn.backbone import build_backbone
from ssl_bench.page import contents, findings, images, runs, serve, write
from ssl_bench.page.script import script
from ssl_bench.page.write import OURS, OWN
from ssl_bench.report import records
from ssl_bench.report.records import Run, StoredRecord
from ssl_bench.results.encoder import read_encoder, save_encoder
from ssl_bench.results.run_folder import RunFolder
from ssl_bench.training.build import build_data, clean_arguments


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("faults"))


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "data").mkdir()
    images = tmp_path / "data" / "cifar-10-python.tar.gz"
    images.write_text("images", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    page(made, Path(), named(made), status=2)
    assert capsys.readouterr().err == (
        "ssl_bench: out=. has files that are not of a page: choose a new or an empty folder.\n"
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [images]


def test_of_data_a_page_deletes_its_own_files_alone(made: Path, tmp_path: Path) -> None:
    page(made, tmp_path, named(made))
    features = ("s0123456789ab-300.js", "s0123456789ab-300-17.js")  # of an earlier version, and of this one
    earlier = ("e7.js", "r0a.js", "p0123456789ab.js", *features, "d0.png", "v12.png")
    others = ("cifar-10-python.tar.gz", "results.js", "dogs.png", "stl10_binary", "e.js")
    for name in (*earlier, *others):
        (tmp_path / "data" / name).write_text("", encoding="utf-8")
    page(made, tmp_path, named(made))
    left = {path.name for path in (tmp_path / "data").iterdir()}
    assert left >= {*others, "index.js", "e0.js"}
    assert not left & {*earlier}


def test_a_page_that_was_interrupted_is_made_by_the_same_command(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path, content: bytes) -> None:
        if path.name == "index.js":
            raise KeyboardInterrupt
        put(path, content)

    put = write._put
    monkeypatch.setattr(write, "_put", interrupt)
    page(made, tmp_path, named(made), status=130)
    monkeypatch.undo()
    page(made, tmp_path, named(made))
    assert "Findings" in (tmp_path / "index.html").read_text(encoding="utf-8")


def experiment(file: Path, **overrides: str) -> str:
    """A file that describes one row of these arguments."""
    rows = {"row": " ".join(f"{key.replace('__', '.')}={value}" for key, value in overrides.items())}
    sweep = {"rows": rows, "datasets": {"smoke": ["digits"]}, "seeds": [0]}
    file.write_text(yaml.safe_dump({"sweep": sweep, "show": {"kind": "table"}}), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"method": "simclr", "method__temprature": "0.1"}, "option method.temprature is unknown"),
        ({"method": "elsewhere"}, "method=elsewhere is unknown"),
    ],
)
def test_an_experiment_that_cannot_be_composed_states_why_and_the_others_are_shown(
    overrides: dict[str, str], sentence: str, made: Path, tmp_path: Path, capsys: Any
) -> None:
    wrong = experiment(tmp_path / "wrong.yaml", **overrides)
    page(made, tmp_path / "site", wrong, named(made), "scale=smoke")
    assert sentence in data(tmp_path / "site", "e0")["problem"]
    assert len(data(tmp_path / "site", "e1")["runs"]) == 6
    page(made, tmp_path / "alone", wrong, "scale=smoke", status=2)  # where nothing else is asked for
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "alone").exists()


BLOCK = """# Title

    {}
"""


@pytest.mark.parametrize(
    ("lines", "report"),
    [
        (["it doesn't matter", "python -m ssl_bench report fig3 out=x"], ["fig3"]),
        (["python -m ssl_bench report fig3 scale=cpu  # it's quick"], ["fig3", "scale=cpu"]),
        (['N="seeds=0,1"', "ssl-bench report fig3 $N out=x"], ["fig3", "seeds=0,1"]),
        ([".venv/bin/python -m ssl_bench report 'my file.yaml'"], ["my file.yaml"]),
        (["python -m ssl_bench report what's this"], None),
        (["python -m ssl_bench reports"], None),
    ],
)
def test_the_report_of_a_readme_is_found_among_any_lines(
    lines: list[str], report: list[str] | None, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text(BLOCK.format("\n    ".join(lines)), encoding="utf-8")
    assert findings.read(tmp_path).report == report


@pytest.mark.parametrize(
    "chosen",
    [
        ["backbone=vit", "backbone.arguments={depth: 1, mlp_ratio: 2.0}"],
        ["backbone=resnet18", "optimizer.name=muon", "epochs=3"],
        ["augment=one_branch", "augment.groups.local.jitter=0.8"],
        [],
    ],
)
def test_the_command_of_a_run_gives_its_configuration_again(chosen: list[str]) -> None:
    config = compose(["method=byol", "dataset=digits", "scale=cpu", "seed=3", *chosen])
    (made,) = records_of([record(Cell("row", "digits", 3, ()), config)])
    overrides = runs.overrides(made)
    assert overrides is not None
    assert compose(overrides) == config


def test_a_watched_page_notices_committed_records_at_any_depth(tmp_path: Path) -> None:
    asked = contents.request(["watch=true", f"records={tmp_path}/**/records", f"out={tmp_path / 'site'}"])
    folder = tmp_path / "trials" / "one" / "records"
    folder.mkdir(parents=True)
    before = serve.stamp_of(asked)
    (folder / "a.json").write_text("{}", encoding="utf-8")
    assert serve.stamp_of(asked).keys() - before.keys() == {str(folder / "a.json")}


def test_a_watched_page_notices_the_texts_and_results_of_findings(tmp_path: Path) -> None:
    asked = contents.request(["watch=true", f"experiments={tmp_path}", f"out={tmp_path / 'site'}"])
    (tmp_path / "one").mkdir()
    before = serve.stamp_of(asked)
    texts = [tmp_path / "README.md", *(tmp_path / "one" / name for name in ("README.md", "table.md", "results.csv"))]
    for text in texts:
        text.write_text("", encoding="utf-8")
    assert serve.stamp_of(asked).keys() - before.keys() == set(map(str, texts))


def test_a_watched_page_begins_before_the_first_run_and_outlives_mistakes(tmp_path: Path, capsys: Any) -> None:
    made = make(tmp_path / "made")
    site = tmp_path / "site"
    asked = contents.request([f"runs_dir={tmp_path / 'runs'}", f"out={site}", "watch=true"])
    seen = []

    def wait(seconds: float) -> None:
        seen.append(len(data(site, "index")["runs"]))
        if len(seen) == 1:
            (made / "runs").rename(tmp_path / "runs")
        elif len(seen) == 2:
            (site / "index.html").write_text("mine", encoding="utf-8")
            next((tmp_path / "runs").iterdir()).rename(tmp_path / "moved")
        elif len(seen) == 3:
            assert f"{site} stays as it was: out={site} has another index.html" in capsys.readouterr().err
            (site / "index.html").write_text(OURS, encoding="utf-8")
            next((tmp_path / "runs").iterdir()).rename(tmp_path / "moved too")
        else:
            raise KeyboardInterrupt

    serve.serve(asked, contents.contents(asked), serve.stamp_of(asked), wait=wait)
    assert seen == [0, 6, 6, 4]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("bench.lan", 200),  # port 80, which browsers leave out
        ("Bench.lan:8000", 200),
        ("localhost", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("example.org", 403),
        ("bench.lan.example.org:8000", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_the_page_is_served_under_the_name_that_was_asked_for_and_no_other(
    header: str, status: int, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("", encoding="utf-8")
    handler = partial(serve.Handler, directory=str(tmp_path), host="Bench.lan")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = http.client.HTTPConnection(*server.server_address[:2])
        connection.request("GET", "/", headers={"Host": header})
        assert connection.getresponse().status == status
        connection.close()
        server.shutdown()


def test_a_run_with_damaged_files_is_named_and_the_others_keep_their_images(tmp_path: Path) -> None:
    config = compose(["method=simclr", "dataset=digits", "scale=smoke"])
    data = build_data(config)
    network = {**config.backbone.as_dict(), "channels": data.dataset.channels}
    described = {"backbone": network, "clean": clean_arguments(config, data.dataset)}
    trained = []
    for seed in range(4):
        (made,) = records_of([record(Cell("", "digits", seed, ()), config, seed=seed, data_digest=data.digest)])
        folder = RunFolder(tmp_path / f"{seed}{made.fingerprint[1:]}")
        folder.path.mkdir()
        folder.config.write_text(yaml.safe_dump(config.as_dict()), encoding="utf-8")
        save_encoder(folder.encoder, build_backbone(**network)[0], described)
        np.savez(folder.predictions, labels=data.splits["test"].labels.numpy())
        made.fingerprint = folder.fingerprint
        cell = Cell(f"row {seed}", "digits", seed, (f"row={seed}",))
        trained.append(Run(cell, config, StoredRecord(folder.record, made), None))
    encoder, predictions, empty = (RunFolder(run.entry.path.parent) for run in trained[1:] if run.entry)
    encoder.encoder.write_bytes(encoder.encoder.read_bytes()[:-100])
    predictions.predictions.write_bytes(predictions.predictions.read_bytes()[:100])
    empty.predictions.write_bytes(b"")
    seen = images.seen([trained[1], trained[0], *trained[2:]], 10, tmp_path / "site")
    assert list(seen.runs) == [trained[0].record.fingerprint if trained[0].record else ""]
    assert [sentence.partition(": ")[0] for sentence in seen.left_out] == [
        str(folder.path) for folder in (encoder, predictions, empty)
    ]
    assert "or is damaged" in seen.left_out[0]
    ((name, there),) = seen.runs.items()
    assert seen.files.keys() == {"d0.png", "v0.png", f"p{name}.js", f"{there['file']}.js"}
    assert there["file"].startswith(f"s{name}-10-")
    assert all(OWN.fullmatch(file) for file in seen.files)
    assert trained[0].entry
    os.utime(RunFolder(trained[0].entry.path.parent).encoder, ns=(1, 1))  # as if the run had been made anew
    assert images.seen(trained[:1], 10, tmp_path / "site").runs[name]["file"] == f"s{name}-10-1"


class Data:
    """Wide pictures that were squashed to squares."""

    def __init__(self) -> None:
        pixels = torch.randint(256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
        sizes = torch.tensor([[16, 16], [16, 48], [60, 12], [20, 40]] * 3)
        self.splits = {"test": Images(pixels, torch.zeros(12, dtype=torch.int64), sizes=sizes)}
        self.dataset = self
        self.name, self.class_names = "folder", ("one",)


def test_squashed_pictures_are_shown_in_their_shape_and_embedded_as_in_evaluation(tmp_path: Path) -> None:
    data: Any = Data()
    test = data.splits["test"]
    found = images.Seen()
    assert images._dataset(found, data, 0, 12)["side"] == 16
    sheet = np.asarray(images.Image.open(io.BytesIO(found.files["d0.png"])))
    tiles = [sheet[:, 16 * place : 16 * (place + 1)].any(2) for place in range(4)]
    filled = [(int(tile.any(1).sum()), int(tile.any(0).sum())) for tile in tiles]
    assert filled == [(16, 16), (5, 16), (16, 3), (8, 16)]

    network = {"name": "resnet18", "stem": "small", "width": 4, "channels": 3}
    clean = {"size": 16, "crop": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    folder = RunFolder(tmp_path)
    save_encoder(folder.encoder, build_backbone(**network)[0], {"backbone": network, "clean": clean})
    shown = images._features(folder, data, list(range(12)))
    encoder, _ = read_encoder(folder.encoder)
    batch = Batch(test.images, test.labels, torch.arange(12), Place(0, 0, 0, 0, 12), test.sizes)
    x = extract(encoder.backbone, encoder.clean, [batch], device="cpu").x
    alike = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(x).T
    assert shown["near"] == alike.fill_diagonal_(-1).topk(8).indices.tolist()


def test_what_a_script_cannot_hold_is_escaped_or_refused() -> None:
    assert script("n", "\udcff\u00e9") == 'take("n","\\udcff\u00e9");\n'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        script("n", [float("nan")])


def test_the_table_of_all_claims_stands_first_and_open(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "experiments", tmp_path / "experiments")
    text = "# Claims\n\n| name | verdict |\n|---|---|\n| fig9 | not yet run |\n"
    (tmp_path / "experiments" / "README.md").write_text(text, encoding="utf-8")
    assert main(["records=null", "out=site"]) == 0
    shown = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    first, second = re.findall(r'<article id="finding-(\w+)"', shown)
    assert (first, second) == ("experiments", "evil")
    assert shown.index('<details class="whole" open>') < shown.index("not yet run") < shown.index("finding-evil")
    assert shown.count('<details class="whole" open>') == 1


def test_runs_that_no_table_may_mix_are_named_in_place_of_one(tmp_path: Path) -> None:
    config = compose(["method=simclr", "dataset=digits", "scale=smoke"])
    versions = {"protocols": dict.fromkeys(PROTOCOLS, 1) | {"knn1": 2}}
    others: list[dict[str, Any]] = [{}, versions, {"batch_statistics": "per_device", "processes": 2}]
    for seed, other in enumerate(others):
        one = config.changed({"seed": seed})
        keep(tmp_path / "runs", [record(Cell("", "digits", seed, ()), one, **other)])
    assert main([f"runs_dir={tmp_path / 'runs'}", f"out={tmp_path / 'site'}"]) == 0
    mixed, apart = data(tmp_path / "site", "index")["experiments"]
    assert mixed["problem"].startswith("the version of protocol knn1 differs, 1 in ")
    assert apart["name"].endswith(", batch statistics of 2 devices")
    assert "problem" not in apart


def test_runs_of_other_images_stand_in_one_table(tmp_path: Path) -> None:
    config = compose(["method=simclr", "dataset=digits", "scale=smoke"])
    for subset in (None, 160):
        one = config.changed({"subset": subset})
        keep(tmp_path / "runs", [record(Cell("", "digits", 0, ()), one, data_digest=f"of {subset}")])
    assert main([f"runs_dir={tmp_path / 'runs'}", f"out={tmp_path / 'site'}"]) == 0
    (shown,) = data(tmp_path / "site", "index")["experiments"]
    assert "problem" not in shown


def test_runs_of_other_images_or_other_weights_are_no_seeds_of_one_row(tmp_path: Path) -> None:
    config = compose(["method=simclr", "dataset=digits", "scale=smoke"])
    weights = {"init": {"name": "encoder.safetensors", "sha256": "c" * 64}}
    others: list[dict[str, Any]] = [{}, {"data_digest": "b" * 64}, {"data_digest": "b" * 64}, weights]
    for seed, other in enumerate(others):
        keep(tmp_path / "runs", [record(Cell("", "digits", seed, ()), config.changed({"seed": seed}), **other)])
    (of_group,) = runs.groups(runs.of_store(records.read(tmp_path / "runs", "").entries.values())).values()
    seeds: dict[str, list[int]] = {}
    for run in of_group:
        seeds.setdefault(run.cell.row, []).append(run.cell.seed)
    assert sorted(seeds.values()) == [[0], [1, 2], [3]]
    assert all("images " in row and "weights " in row for row in seeds)  # none of them is called the usual one
