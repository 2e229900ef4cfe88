"""Runs that start from weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_bench.config.compose import compose
from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.nn.backbone import build_backbone
from ssl_bench.results.encoder import save_encoder
from ssl_bench.results.record import Record
from ssl_bench.results.weights import sha256
from ssl_bench.training import initial, preflight
from ssl_bench.training.build import build_data, build_method, fingerprint_of
from ssl_bench.training.run import run

NETWORK = {"name": "resnet18", "stem": "small", "width": 8, "channels": 1}


def weights(path: Path, **other: Any) -> Path:
    """An encoder of a run at smoke scale, with other weights than a seed gives."""
    torch.manual_seed(7)
    network = NETWORK | other
    clean = {"size": 16, "crop": 1.0, "mean": [0.3], "std": [0.4]}
    save_encoder(path, build_backbone(**network)[0], {"backbone": network, "clean": clean})
    return path


def small(*overrides: str) -> Config:
    return compose(["dataset=digits", "scale=smoke", "subset=32", "batch_size=16", *overrides])


@pytest.mark.parametrize("teacher_init", ["copy", "independent"])
def test_student_and_teacher_start_from_the_file_and_all_else_as_without(tmp_path: Path, teacher_init: str) -> None:
    path = weights(tmp_path / "encoder.safetensors")
    overrides = ["method=byol"] + ([f"method.teacher_init={teacher_init}"] if teacher_init != "copy" else [])
    config = small(*overrides, "seed=3")
    dataset = build_data(config).dataset
    plain: Any = build_method(config, dataset)
    method: Any = build_method(small(*overrides, "seed=3", f"init={path}"), dataset)
    torch.manual_seed(7)
    wanted = build_backbone(**NETWORK)[0].state_dict()  # type: ignore[arg-type]
    for network in (method.student, method.teacher):
        for name, value in network.backbone.state_dict().items():
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=0)
    assert not torch.equal(plain.student.backbone.conv1.weight, method.student.backbone.conv1.weight)
    for name, value in plain.student.projector.state_dict().items():
        torch.testing.assert_close(method.student.projector.state_dict()[name], value, rtol=0, atol=0)


def test_the_content_names_the_run_and_not_the_place(tmp_path: Path) -> None:
    first, again = weights(tmp_path / "a.safetensors"), weights(tmp_path / "b.safetensors")
    other = weights(tmp_path / "c.safetensors", width=4)
    names = [fingerprint_of(small(f"init={path}"), "d") for path in (first, again, other)]
    assert names[0] == names[1] != names[2]
    assert fingerprint_of(small(), "d") not in names


def test_a_run_records_the_file_with_its_keys_and_no_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lightning.pth"
    torch.manual_seed(7)
    state = build_backbone(**NETWORK)[0].state_dict()  # type: ignore[arg-type]
    torch.save({"state_dict": {f"net.{name}": value for name, value in state.items()} | {"head": torch.ones(3)}}, path)
    overrides = ["method=simsiam", "epochs=1", "evaluation.protocols=[knn1]", "evaluation.curves=[knn1]"]
    config = small(*overrides, "trainer.progress=false", f"init={path}", f"runs_dir={tmp_path / 'runs'}")
    record = run(config)
    printed = " ".join(capsys.readouterr().out.split())  # its lines end where the paths let them
    assert "120 tensors used; left over: state_dict.head" in printed
    assert record.init is not None
    assert (record.init["file"], record.init["sha256"]) == ("lightning.pth", sha256(path))
    file = tmp_path / "runs" / record.fingerprint / "record.json"
    assert str(tmp_path) not in file.read_text()
    assert Record.read(file, record.fingerprint).init == record.init  # its name is that of its content
    run(config)
    assert "Finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("network", "part"),
    [
        ({"channels": 3}, "channels 3 where the run has 1"),
        ({"width": 4}, "width 4 where the run has 8"),
        ({"stem": "cifar"}, "stem cifar where the run has small"),
    ],
)
def test_another_network_is_refused_in_one_sentence(tmp_path: Path, network: dict[str, Any], part: str) -> None:
    config = small(f"init={weights(tmp_path / 'e.safetensors', **network)}")
    with pytest.raises(UserError, match=f"is another network than this run's backbone: {part}"):
        initial.load(config, 1)


def test_what_is_not_there_is_answered_before_pytorch(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="init=nowhere does not exist"):
        preflight.check(small("init=nowhere"))
    with pytest.raises(UserError, match="init=timm is for backbones of timm"):
        initial.digest(small("init=timm"))


def test_timms_weights_are_taken_from_the_disk_and_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    hub = pytest.importorskip("huggingface_hub")
    config = small("backbone.name=timm/test_resnet", "init=timm")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda repository, name: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"the weights of test_resnet are not on this disk.*timm.create_model"):
        initial.digest(config)
    torch.manual_seed(7)
    network = timm.create_model("test_resnet", in_chans=1)  # with its classifier
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    monkeypatch.setattr(
        hub, "try_to_load_from_cache", lambda repository, name: str(tmp_path / name) if name[0] == "p" else None
    )
    found = initial.load(config, 1)
    assert found is not None
    assert torch.equal(found.backbone.state_dict()["conv1.0.weight"], network.state_dict()["conv1.0.weight"])
    assert any("fc" in name for name in found.keys.left_over)
