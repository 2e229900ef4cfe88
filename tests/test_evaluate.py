"""Encoders from anywhere, scored as runs are."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.nn import functional as F

from ssl_bench.cli import evaluate
from ssl_bench.config.compose import compose
from ssl_bench.data.datamodule import DataModule
from ssl_bench.encoders import score as score_room
from ssl_bench.encoders.loading import encoder_clean
from ssl_bench.encoders.score import score
from ssl_bench.errors import UserError
from ssl_bench.nn.backbone import build_backbone
from ssl_bench.results.encoder import load_encoder, save_encoder
from ssl_bench.results.record import Record
from ssl_bench.results.weights import open_encoder, open_projector
from ssl_bench.training.build import build_data, build_evaluator
from ssl_bench.training.run import run

SMALL = ("dataset=digits", "scale=smoke", "subset=160", "evaluation.protocols=[knn1]")
WIDTHS = [8, 8, 16, 32, 64, 64, 64, 32]  # of the layers of a run of CLBO at scale=smoke
GRAY = {"size": 14, "crop": 1.0, "mean": [0.3], "std": [0.4]}


def mine(path: Path, *, channels: int = 1) -> Path:
    """A small encoder as a run saves it."""
    network = {"name": "resnet18", "stem": "small", "width": 4, "channels": channels}
    clean = {**GRAY, "mean": [0.3] * channels, "std": [0.4] * channels}
    torch.manual_seed(0)
    save_encoder(path, build_backbone(**network)[0], {"backbone": network, "clean": clean})
    return path


def foreign(path: Path, *, channels: int = 3) -> Path:
    torch.manual_seed(0)
    network, _ = build_backbone("resnet18", stem="cifar", width=4, channels=channels)
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, path)
    return path


def evaluated(*options: Any) -> Record:
    return score(*evaluate.read([str(option) for option in options]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """The store and the record of a run."""
    store = tmp_path_factory.mktemp("runs")
    options = ["dataset=digits", "scale=smoke", "subset=160", "epochs=1", "seed=3", "batch_size=16"]
    rest = ["trainer.progress=false", "trainer.precision=32-true", f"runs_dir={store}"]
    return store, run(compose([*options, *rest]))


def test_a_runs_encoder_gets_the_figures_of_its_record(finished: tuple[Path, Record]) -> None:
    tmp_path, record = finished
    again = evaluated(tmp_path / record.fingerprint, *SMALL[:3], "seed=3", f"runs_dir={tmp_path}")
    assert again.results == {
        "encoder": record.results["teacher"],
        "random": record.results["random"],
        "pixels": record.results["pixels"],
    }
    assert again.data_digest == record.data_digest
    assert again.notes["encoder"] == record.notes["teacher"]
    assert (again.encoder or {})["run"] == record.fingerprint
    # its checkpoint is scored as its encoder: network, size and normalisation are those of the run
    checkpoint = tmp_path / record.fingerprint / "checkpoints" / "last.ckpt"
    options = [*SMALL, "seed=3", f"runs_dir={tmp_path}", "statistics=auto", "prefix=state_dict.student.backbone"]
    third = evaluated(checkpoint, *options)
    assert third.results["encoder"] == {"knn1": record.results["student"]["knn1"]}
    assert third.results["random"] == {"knn1": record.results["random"]["knn1"]}
    assert (third.encoder or {})["clean"] == (again.encoder or {})["clean"]
    assert (third.encoder or {})["statistics"] == "its run's"
    options.pop()  # of two networks the one that the record names
    opened = open_encoder(checkpoint, name=None, stem=None, width=None, prefix=None)
    assert opened.keys.prefix == "state_dict.teacher.backbone."
    of_own_dataset = replace(opened, dataset="mine")
    with pytest.raises(
        UserError, match="a run on mine, and does not state by what it normalises: give the run's folder"
    ):
        encoder_clean(of_own_dataset, size=None, crop=None, statistics="auto", dataset=None)
    with pytest.raises(UserError, match="states itself what network it holds: leave stem out"):
        evaluated(checkpoint, *options, "backbone.stem=cifar")


def test_every_layer_of_a_run_is_scored_in_one_table(
    finished: tuple[Path, Record], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    store, of_run = finished
    folder, options = store / of_run.fingerprint, ["seed=3", f"runs_dir={tmp_path}", f"out={tmp_path / 'all.json'}"]
    record = evaluated(folder, *SMALL, *options, "layers=all")
    shown = capsys.readouterr().out
    stages = ["stem", "layer1", "layer2", "layer3", "layer4"]
    layers = [*stages, "encoder", "projector 1", "projector 2"]
    assert list(record.results) == [*layers, "random", "pixels"]
    rows = [line.replace("│", " ").split() for line in shown.splitlines() if line.startswith("│")]
    assert [" ".join(row[:-1]) for row in rows] == [*layers, "random weights", "raw pixels"]
    assert [row[-1] for row in rows] == [f"{scores['knn1']:.1f}" for scores in record.results.values()]
    # the features keep their figures, of which the mean over pixels of the last stage are all
    assert record.results["encoder"] == record.results["layer4"] == {"knn1": of_run.results["teacher"]["knn1"]}
    # 1-NN by hand behind the deployed network's projector, as the run has trained it
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    prefix = "teacher.projector."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    data = build_data(compose(SMALL))
    encoder, train, test = load_encoder(folder), data.splits["train"], data.splits["test"]
    norm = [weights[f"1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]

    def projected(images: torch.Tensor, number: int) -> torch.Tensor:
        z = F.batch_norm(F.linear(encoder(images / 255), weights["0.weight"]), *norm).relu()
        return F.normalize(z if number == 1 else F.linear(z, weights["3.weight"], weights["3.bias"]))

    for number in (1, 2):
        with torch.no_grad():
            similarity = projected(test.images, number) @ projected(train.images[data.parts.bank], number).T
        right = train.labels[data.parts.bank][similarity.argmax(1)] == test.labels
        assert record.results[f"projector {number}"]["knn1"] == pytest.approx(100 * right.double().mean().item())
    assert (record.encoder or {})["layers"] == dict(zip(layers, WIDTHS, strict=True))
    checkpoint = folder / "checkpoints" / "last.ckpt"
    assert (record.encoder or {})["projector"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    plain = evaluated(folder, *SMALL, "seed=3", f"runs_dir={tmp_path}")
    assert plain.fingerprint != record.fingerprint
    # of two networks in a checkpoint, the projector is that of the one asked for
    of_student = open_encoder(checkpoint, name=None, stem=None, width=None, prefix="state_dict.student.backbone")
    found, _ = open_projector(of_student)
    assert found is not None
    for name, value in found.state_dict().items():
        assert torch.equal(value, state[f"student.projector.{name}"])
    assert not torch.equal(state["student.projector.0.weight"], weights["0.weight"])
    student = evaluated(checkpoint, *SMALL, *options, "layers=all", "prefix=state_dict.student.backbone")
    assert student.results["encoder"] == {"knn1": of_run.results["student"]["knn1"]}
    assert student.results["projector 2"] != record.results["projector 2"]


def test_what_has_no_stages_or_no_projector_is_stated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mine(tmp_path / "e.safetensors")
    record = evaluated(path, *SMALL, f"runs_dir={tmp_path}", "layers=all")
    assert list(record.results)[-3:] == ["encoder", "random", "pixels"]
    assert f"no layers of a projector: {tmp_path}/checkpoints/last.ckpt would have them" in capsys.readouterr().out
    encoder = open_encoder(path, name=None, stem=None, width=None, prefix=None)
    encoder.backbone.__class__ = torchvision.models.ResNet  # as a network that lists no stages
    sentences: list[str] = []
    _, of, about = score_room._layers(encoder, 14, everything=True, show=sentences.append)
    assert list(of) == ["encoder"]
    assert about == {"layers": of, "projector": None}
    assert sentences[0] == "no stages: resnet18 does not list any"


def test_the_record_states_file_network_keys_and_assumptions_but_no_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = foreign(tmp_path / "w.pth")
    record = evaluated(path, *SMALL, f"runs_dir={tmp_path / 'runs'}", "backbone.stem=cifar")
    (file,) = (tmp_path / "runs").glob("*.json")
    assert file.name == f"evaluation-{record.fingerprint}.json"
    written = json.loads(file.read_text())
    assert {"encoder", "seconds", "results"} <= written.keys()
    assert not {"method", "evaluated", "curves", "precision", "earlier_code"} & written.keys()
    assert written["encoder"] == json.loads(json.dumps(record.encoder))
    assert str(tmp_path) not in file.read_text()
    about = record.encoder or {}
    assert about["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert about["network"] == {"name": "resnet18", "stem": "cifar", "width": 4, "channels": 3}
    assert (about["keys"]["prefix"], len(about["keys"]["used"])) == ("state_dict.module.", 120)
    assert about["clean"]["mean"] == [0.485, 0.456, 0.406]
    assert record.protocols == {"knn1": 1}
    shown = capsys.readouterr().out
    for option in ("120 tensors used", "resnet18, by its layers", "ImageNet's", "gray channel three times"):
        assert option in shown
    for row in ("encoder", "random weights", "raw pixels", "knn1 v1"):
        assert row in shown


def test_images_that_do_not_fit_on_the_device_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DataModule, "place_on", lambda data, device: "no room on the card.")
    evaluated(mine(tmp_path / "gray.safetensors"), *SMALL, f"runs_dir={tmp_path}")
    assert "warning: no room on the card." in capsys.readouterr().out


def test_gray_images_reach_a_colour_network_as_equal_red_green_and_blue(tmp_path: Path) -> None:
    config = compose(SMALL)
    data = build_data(config)
    encoder = open_encoder(foreign(tmp_path / "w.pth"), name=None, stem="cifar", width=None, prefix=None)
    clean, _ = encoder_clean(encoder, size=16, crop=1.0, statistics="auto", dataset=data.dataset)
    evaluator = build_evaluator(config, data, clean)
    found = evaluator.features(encoder.backbone, torch.device("cpu")).test.x[:9]
    images = data.splits["test"].images[:9].expand(-1, 3, -1, -1) / 255
    images = F.interpolate(images, (16, 16), mode="bilinear", antialias=True)
    images = torchvision.transforms.functional.normalize(images, clean["mean"], clean["std"])
    with torch.no_grad():
        torch.testing.assert_close(found, encoder.backbone(images), rtol=1e-4, atol=1e-5)


def test_statistics_are_the_files_own_unless_one_chooses(tmp_path: Path) -> None:
    dataset = build_data(compose(SMALL)).dataset

    def statistics(path: Path, option: str) -> tuple[float, str]:
        stem = None if path.suffix == ".safetensors" else "cifar"
        encoder = open_encoder(path, name=None, stem=stem, width=None, prefix=None)
        clean, whose = encoder_clean(encoder, size=16, crop=None, statistics=option, dataset=dataset)
        assert len(clean["mean"]) == len(clean["std"]) == encoder.channels
        return clean["mean"][0], whose

    own, colour = mine(tmp_path / "e.safetensors"), foreign(tmp_path / "c.pth")
    gray = foreign(tmp_path / "g.pth", channels=1)
    assert statistics(own, "auto") == (0.3, "its file's")
    assert statistics(own, "dataset") == (0.3054, "those of digits")
    assert statistics(colour, "auto") == statistics(colour, "imagenet") == (0.485, "ImageNet's")
    assert statistics(colour, "dataset") == (0.3054, "those of digits")
    assert statistics(gray, "auto") == (0.3054, "those of digits")
    with pytest.raises(UserError, match="of three channels, but the network has 1"):
        statistics(gray, "imagenet")


def test_our_files_size_holds_unless_one_is_set_and_a_foreign_ones_is_the_datasets(tmp_path: Path) -> None:
    own, other = mine(tmp_path / "e.safetensors"), foreign(tmp_path / "w.pth")
    runs = f"runs_dir={tmp_path}"
    assert (evaluated(own, *SMALL, runs, "dataset.clean_crop=0.5").encoder or {})["clean"] == {**GRAY, "crop": 0.5}
    assert (evaluated(own, *SMALL, runs, "dataset.size=12").encoder or {})["clean"]["size"] == 12
    options = (*SMALL, runs, "backbone.stem=cifar", f"out={tmp_path / 'x.json'}", "dataset.size=12")
    assert (evaluated(other, *options).encoder or {})["clean"]["size"] == 12
    assert json.loads((tmp_path / "x.json").read_text())["dataset"] == "digits"


def test_a_gray_network_refuses_colour_and_a_dataset_without_classes_is_not_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        Image.fromarray(np.full((9, 9, 3), number, np.uint8)).save(pictures / f"{number}.png")
    options = ("dataset=folder", f"dataset.root={pictures}", "dataset.size=16", f"runs_dir={tmp_path}")
    with pytest.raises(UserError, match=r"takes images of 1 channel.*, but folder has 3"):
        evaluated(mine(tmp_path / "e.safetensors"), *options)
    record = evaluated(mine(tmp_path / "c.safetensors", channels=3), *options)
    assert set(record.results["encoder"].values()) == {None}
    assert "not scored: there are no labelled images" in capsys.readouterr().out


def test_a_file_that_is_no_record_is_never_replaced(tmp_path: Path) -> None:
    path, record = mine(tmp_path / "e.safetensors"), tmp_path / "record.json"
    record.write_text("{}", encoding="utf-8")  # of a run
    before = path.read_bytes()
    for out in (path, record):
        with pytest.raises(UserError, match=r"is a file, and no record of this command"):
            evaluated(path, *SMALL, f"out={out}")
    assert path.read_bytes() == before
    assert record.read_text(encoding="utf-8") == "{}"


def test_a_dataset_that_the_encoder_cannot_take_is_named_before_another_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, few = tmp_path / "runs", tmp_path / "few"
    for number in range(2):
        (few / str(number)).mkdir(parents=True)
        for name in "ab":
            Image.fromarray(np.full((9, 9), 99, np.uint8)).save(few / str(number) / f"{name}.png")
    for channels, other, why in [
        (1, "cifar10", "takes images of 1 channel(s), but cifar10 has 3"),
        (3, f"folder:{few}", "subset=320, but there are 4 images to pretrain on"),
    ]:
        path = mine(tmp_path / f"{channels}.safetensors", channels=channels)
        options = ["scale=smoke", f"runs_dir={runs}", f"data_dir={tmp_path}", f"datasets=digits,{other}", "subset=320"]
        assert evaluate.main([str(path), *options]) == 2
        output, errors = capsys.readouterr()
        assert why in errors
        assert "evaluating" not in output
    assert not list(runs.glob("*.json"))


def test_a_full_card_is_a_sentence_with_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(DataModule, "place_on", full)
    assert evaluate.main([str(mine(tmp_path / "e.safetensors")), *SMALL, f"runs_dir={tmp_path}"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "evaluation takes more memory than there is" in shown
    assert "lower evaluation.batch_size or evaluation.memory" in shown


def test_datasets_are_set_once() -> None:
    with pytest.raises(UserError, match="datasets is set twice, by datasets=cifar10 and by datasets=stl10"):
        evaluate.each_dataset(["encoder.pth", "datasets=cifar10", "datasets=stl10"])


def test_an_encoder_on_several_datasets_has_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    for number in range(60):
        folder = tmp_path / "pictures" / f"class {number % 12}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9), 20 * (number % 12) + number % 5, np.uint8)).save(folder / f"{number}.png")
    path = mine(tmp_path / "e.safetensors", channels=3)
    options = ["scale=smoke", "evaluation.protocols=[knn1,linear]", f"runs_dir={tmp_path / 'runs'}", "subset=36"]
    assert evaluate.main([str(path), *options, f"datasets=digits,folder:{tmp_path / 'pictures'}"]) == 0
    table = capsys.readouterr().out.rpartition("e.safetensors on 2 datasets")[2]
    rows = [" ".join(line.replace("│", " ").split()) for line in table.splitlines() if line.startswith("│")]
    found = {}
    for file in (tmp_path / "runs").glob("evaluation-*.json"):
        written = json.loads(file.read_text())
        found[written["dataset"]] = written["results"]
    assert found.keys() == {"digits", "folder"}
    assert len(rows) == 6
    for row, (dataset, network, name) in zip(
        rows,
        [
            (dataset, network, name)
            for dataset in ("digits", "folder")
            for network, name in (("encoder", "encoder"), ("random", "random weights"), ("pixels", "raw pixels"))
        ],
        strict=True,
    ):
        scores = found[dataset][network]
        # five of digits' ten classes would say little
        columns = [f"{scores['knn1']:.1f}", f"{scores['linear']:.1f}"]
        columns.append(f"{scores['linear_top5']:.1f}" if dataset == "folder" else "–")
        assert row.endswith(f"{name} {' '.join(columns)}")
    assert rows[0].startswith("digits encoder")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["HERE", "datasets=digits,digit"], "dataset=digit is unknown; did you mean digits?"),
        (["HERE", "datasets=[digits,digit]"], "dataset=digit is unknown; did you mean digits?"),
        (["HERE", "datasets=digits", "dataset=digits"], "dataset=digits and datasets= are both set"),
        (["HERE", "datasets=digits,folder", "out=no/folder"], "out=no/folder is not a folder"),
        (["HERE", "datasets=digits:here"], "only folder:PATH has a path"),
        ([], "argument 1 must be a run's folder or a file of weights"),
        (["dataset=digits"], "argument 1 must be a run's folder or a file of weights, and dataset=digits is none"),
        (["nowhere", "dataset=digits"], "nowhere does not exist"),
        (["HERE"], "set the dataset, as in dataset=digits"),
        (["HERE", "dataset=digit"], "dataset=digit is unknown; did you mean digits?"),
        (["HERE", "sedd=1"], "option sedd is unknown; did you mean seed?"),
        (["HERE", "prefx=a"], "option prefx is unknown; did you mean prefix?"),
        (["HERE", "statistics=mine"], "statistics is auto or imagenet or dataset"),
        (["HERE", "dataset=digits", "method=byol"], "method makes no sense here"),
        (["HERE", "dataset=digits", "optimizer.lr=1"], "optimizer.lr makes no sense here"),
        (["HERE", "dataset=digits", "dataset.epochs=1"], "dataset.epochs makes no sense here"),
        (["HERE", "dataset=digits", "trainer=ddp"], "trainer makes no sense here"),
        (["HERE", "dataset=digits"], "HERE/encoder.safetensors does not exist"),
    ],
)
def test_a_wrong_option_is_answered_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], part: str
) -> None:
    assert evaluate.main([str(tmp_path) if option == "HERE" else option for option in options]) == 2
    shown = capsys.readouterr().err
    assert part.replace("HERE", str(tmp_path)) in shown
    assert shown.count("\n") == 1


def test_help_shows_what_may_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(
        option in shown
        for option in ("RUN_OR_FILE", "prefix=null", "statistics=auto", "out=null", "evaluation.linear.")
    )


def test_arguments_are_checked_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from ssl_bench.cli import evaluate, embed\n"
        f"evaluate.read([{str(tmp_path)!r}, 'dataset=digits'])\n"
        f"embed.main(['nowhere', {str(tmp_path)!r}])\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
