"""Encoders as other libraries load them."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ssl_bench
from ssl_bench.cli import export as command
from ssl_bench.config.compose import compose, options_for
from ssl_bench.encoders import formats
from ssl_bench.nn.backbone import build_backbone
from ssl_bench.results.encoder import save_encoder

RECORD = Path(__file__).parents[1] / "experiments" / "learns" / "records"


def encoder(folder: Path, name: str, stem: str, width: int, channels: int, size: int = 32, crop: float = 0.875) -> Path:
    """An encoder whose BatchNorm has statistics, as a run saves it."""
    torch.manual_seed(0)
    network = {"name": name, "stem": stem, "width": width, "channels": channels}
    backbone, _ = build_backbone(**network)  # type: ignore[arg-type]
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    clean = {"size": size, "crop": crop, "mean": [0.4] * channels, "std": [0.2] * channels}
    save_encoder(folder / "encoder.safetensors", backbone, {"backbone": network, "clean": clean})
    return folder / "encoder.safetensors"


def exported(path: Path, *options: str) -> Path:
    out = path.parent / "out"
    assert command.main([str(path), f"out={out}", *options]) == 0
    return out


def features(path: Path, images: torch.Tensor, *, raw: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """load_encoder's of float images, and what an encoder that is given these, or the clean view of them, would be."""
    ours: Any = ssl_bench.load_encoder(path)
    with torch.no_grad():
        return ours(images), images if raw else ours.clean(images)


def test_torchvision_gives_the_features_by_the_lines_of_the_card(tmp_path: Path) -> None:
    path = encoder(tmp_path, "resnet10", "cifar", 64, 1)
    out = exported(path, "to=torchvision")
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "encoder.pth"]
    expected, images = features(path, torch.rand(3, 1, 40, 33))
    (lines,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"folder": out, "images": images}
    with torch.no_grad():
        exec(lines, names)
    assert "torchvision.models" in type(names["encoder"]).__module__
    torch.testing.assert_close(names["features"], expected, rtol=1e-5, atol=1e-5)


def test_timm_creates_the_network_from_the_folder_with_its_preprocessing(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    path = encoder(tmp_path, "timm/test_resnet", "imagenet", 64, 1, size=48)
    out = exported(path, "to=timm")
    expected, images = features(path, torch.rand(2, 1, 48, 60))
    network = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)
    data = timm.data.resolve_model_data_config(network)
    assert (data["input_size"], tuple(data["mean"]), data["crop_pct"]) == ((1, 48, 48), (0.4,), 0.875)


def test_a_file_of_others_becomes_one_of_ours(tmp_path: Path) -> None:
    path = encoder(tmp_path, "resnet18", "imagenet", 8, 3)
    state = ssl_bench.load_encoder(path).backbone.state_dict()  # type: ignore[operator, union-attr]
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    again = exported(tmp_path / "w.pth", "to=safetensors", "size=32", "crop=0.875")
    images = torch.rand(2, 3, 32, 32)
    ours: Any = ssl_bench.load_encoder(again / "encoder.safetensors")
    assert ours.clean.mean.flatten()[0] == pytest.approx(0.485)  # ImageNet's, which was assumed
    ours.clean = ssl_bench.load_encoder(path).clean
    with torch.no_grad():
        torch.testing.assert_close(ours(images), features(path, images)[0])


@pytest.mark.slow
@pytest.mark.parametrize("inside", [False, True], ids=["normalised", "preprocessing"])
def test_onnxruntime_gives_the_features_of_any_number_of_images(tmp_path: Path, inside: bool) -> None:
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    path = encoder(tmp_path, "resnet18", "small", 4, 1)
    out = exported(path, "to=onnx", "opset=18", f"preprocessing={inside}".lower())
    assert {entry.domain: entry.version for entry in onnx.load(out / "encoder.onnx").opset_import}[""] == 18
    session = onnxruntime.InferenceSession(out / "encoder.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 32, 32), (7, 1, 50, 37), (2, 1, 9, 70)):
        expected, images = features(path, torch.rand(shape), raw=inside)
        (found,) = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_transformers_gives_the_features(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    path = encoder(tmp_path, "timm/test_vit", "imagenet", 64, 3, size=160, crop=1.0)
    network = transformers.AutoModel.from_pretrained(exported(path, "to=transformers")).eval()
    expected, images = features(path, torch.rand(2, 3, 160, 180))
    with torch.no_grad():
        torch.testing.assert_close(network(images).pooler_output, expected, rtol=1e-5, atol=1e-5)


def other_features(subject: formats.Subject, folder: Path) -> None:
    weights = dict(subject.backbone.state_dict())
    weights["layer4.0.bn2.bias"] = weights["layer4.0.bn2.bias"] + 1e-3
    torch.save(weights, folder / "encoder.pth")


def nothing_that_loads(subject: formats.Subject, folder: Path) -> None:
    (folder / "encoder.pth").write_bytes(b"?")


@pytest.mark.parametrize(
    ("write", "part"),
    [(other_features, "differ from load_encoder's by up to 0.001"), (nothing_that_loads, "cannot take resnet10")],
    ids=["other features", "damaged"],
)
def test_what_the_library_does_not_load_with_our_features_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], write: Any, part: str
) -> None:
    path = encoder(tmp_path, "resnet10", "small", 64, 1)
    broken = dataclasses.replace(formats.FORMATS["torchvision"], write=write)
    monkeypatch.setitem(formats.FORMATS, "torchvision", broken)
    assert command.main([str(path), "to=torchvision", f"out={tmp_path / 'out'}"]) == 2
    shown = capsys.readouterr().err
    assert part in shown
    assert shown.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_export_that_is_stopped_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    def stopped(subject: formats.Subject, folder: Path) -> None:
        assert folder.is_dir()
        signal.raise_signal(number)

    path = encoder(tmp_path, "resnet10", "small", 64, 1)
    before = signal.getsignal(signal.SIGTERM)
    stops = dataclasses.replace(formats.FORMATS["torchvision"], write=stopped)
    monkeypatch.setitem(formats.FORMATS, "torchvision", stops)
    assert command.main([str(path), "to=torchvision", f"out={tmp_path / 'out'}"]) == 128 + signal.SIGINT
    assert "interrupted; nothing was written." in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["to=torchvision"], "torchvision has no resnet18 of width 4, only of 64: use to=onnx"),
        (["to=timm"], "timm has no resnet18 with the small stem of width 4"),
        (["to=transformers"], "timm has no resnet18 with the small stem of width 4"),
        ([], "set the library that is to load the encoder"),
        (["to=onx"], "did you mean onnx?"),
        (["to=onnx", "opset=11"], "opset is null or a whole number at least 18"),
        (["to=timm", "opset=18"], "opset makes no sense with to=timm"),
        (["to=safetensors", "out=HERE"], "HERE exists: choose another folder"),
        (["to=safetensors", "out=/proc/no/folder"], "out=/proc/no/folder cannot be written"),
    ],
)
def test_what_cannot_be_done_is_answered_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    part: str,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # as if transformers were there
    path = encoder(tmp_path, "resnet18", "small", 4, 1)
    assert command.main([str(path), *(option.replace("HERE", str(tmp_path)) for option in options)]) == 2
    shown = capsys.readouterr().err
    assert part.replace("HERE", str(tmp_path)) in shown
    assert shown.count("\n") == 1


def test_features_that_are_not_finite_and_a_damaged_record_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = {"name": "resnet10", "stem": "cifar", "width": 64, "channels": 1}
    backbone, _ = build_backbone(**network)  # type: ignore[arg-type]
    clean = {"size": 16, "crop": 1.0, "mean": [0.4], "std": [0.2]}
    description = {"backbone": network, "clean": clean, "fingerprint": "0123456789ab"}
    save_encoder(tmp_path / "e.safetensors", backbone, description)
    (tmp_path / "record.json").write_text("{", encoding="utf-8")
    assert command.main([str(tmp_path / "e.safetensors"), f"out={tmp_path / 'out'}", "to=torchvision"]) == 2
    assert f"{tmp_path / 'record.json'} is no finished record (" in capsys.readouterr().err
    (tmp_path / "record.json").unlink()
    with torch.no_grad():
        next(backbone.parameters()).fill_(torch.nan)
    save_encoder(tmp_path / "e.safetensors", backbone, description)
    assert command.main([str(tmp_path / "e.safetensors"), f"out={tmp_path / 'out'}", "to=torchvision"]) == 2
    assert "its features are infinite or not a number: the network has diverged." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_library_that_is_missing_is_named_with_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name.startswith("onnx") else name)
    assert command.main([str(tmp_path), "to=onnx"]) == 2
    assert "to=onnx needs onnx and onnxruntime and onnxscript" in capsys.readouterr().err


def test_the_card_of_a_run_has_the_metadata_of_the_hub(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    found = next(iter(sorted(RECORD.glob("*.json"))))
    record = json.loads(found.read_text(encoding="utf-8"))
    (tmp_path / "record.json").write_text(found.read_text(encoding="utf-8"), encoding="utf-8")
    path = encoder(tmp_path, "resnet18", "small", 8, 1, size=16)
    ours: Any = ssl_bench.load_encoder(path)
    network = {"name": "resnet18", "stem": "small", "width": 8, "channels": 1}
    clean = {"size": 16, "crop": 1.0, "mean": [0.4], "std": [0.2]}
    save_encoder(path, ours.backbone, {"backbone": network, "clean": clean, "fingerprint": record["fingerprint"]})
    out = exported(path, "to=safetensors")
    card = hub.ModelCard.load(out / "README.md")
    data = card.data
    assert (data.library_name, data.datasets, data.license) == ("ssl_bench", [record["dataset"]], "cc-by-4.0")
    assert {record["method"], "recipe:shared"} < set(data.tags)
    own = record["results"][record["evaluated"]]
    assert {result.metric_name: result.metric_value for result in data.eval_results} == {
        f"{name} v{record['protocols'][name]}": round(value, 2) for name, value in own.items()
    }
    for result in data.eval_results:
        name = result.metric_args["protocol"]
        assert (result.metric_name, result.dataset_split) == (f"{name} v{result.metric_args['version']}", "test")
    for part in ("Licence of the data: CC BY 4.0", "UCI Machine Learning", f"method={record['method']}"):
        assert part in card.text
    assert str(tmp_path) not in card.content


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=byol", "dataset=cifar10", "scale=cpu", "seed=3", "optimizer.lr=0.3", "augment.groups.local.count=2"],
        ["method=vicreg", "recipe=original", "backbone=resnet34", "evaluation.protocols=[knn1]"],
        ["backbone.name=timm/test_vit", "method.lookahead=3"],
        ["dataset=cifar10", "augment=one_branch", "augment.groups.local.jitter=0.8"],
    ],
)
def test_the_options_of_a_configuration_give_it_again(overrides: list[str]) -> None:
    config = compose([*overrides, "runs_dir=elsewhere"])
    again = options_for(config.as_dict())
    assert compose([*again, "runs_dir=elsewhere"]) == config
    assert "scale=cpu" in again or config.scale.name == "demo"
    assert not any(override.startswith("runs_dir") for override in again)
    assert len(again) < 20
