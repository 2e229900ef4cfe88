"""Networks of timm as backbones: their arguments, weights and defaults, from the command line to exported files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ssl_bench
from ssl_bench.cli import embed, evaluate, export
from ssl_bench.config.compose import compose, options_for
from ssl_bench.config.schema import Config
from ssl_bench.errors import UserError
from ssl_bench.nn.backbone import build_backbone
from ssl_bench.report.tables import network_note, run_table
from ssl_bench.results.encoder import save_encoder
from ssl_bench.results.fingerprint import fingerprint
from ssl_bench.results.weights import open_encoder
from ssl_bench.training import initial, preflight
from ssl_bench.training.build import build_data, build_method
from ssl_bench.training.run import run

timm = pytest.importorskip("timm")

VIT = "backbone.name=timm/vit_tiny_patch16_224"
SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
GIVEN = f"backbone.arguments={{{', '.join(f'{name}: {value}' for name, value in SMALL.items())}}}"


def name_of(config: Config) -> str:
    return fingerprint(config.as_dict(), data_digest="d", precision="32-true")


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def test_arguments_reach_timms_constructor_in_student_and_teacher() -> None:
    config = compose(["method=byol", "scale=smoke", VIT, GIVEN])
    method: Any = build_method(config, build_data(config).dataset)
    wanted = timm.create_model("vit_tiny_patch16_224", in_chans=1, num_classes=0, **SMALL)
    assert shapes(method.student.backbone) == shapes(method.teacher.backbone) == shapes(wanted)
    assert method.student.projector[0].in_features == SMALL["embed_dim"]


def test_arguments_are_part_of_the_name_of_a_run_and_none_leaves_it() -> None:
    plain, given = compose([VIT]), compose([VIT, GIVEN])
    assert "arguments" not in plain.as_dict()["backbone"]
    changed = [
        compose([VIT, GIVEN.replace(f"{name}: {value}", f"{name}: {2 * value}")]) for name, value in SMALL.items()
    ]
    assert len({name_of(config) for config in (plain, given, *changed)}) == len(SMALL) + 2
    one_by_one = [f"backbone.arguments.{name}={value}" for name, value in SMALL.items()]
    assert compose([VIT, *one_by_one]) == given == compose([VIT, GIVEN, "backbone.pretrained=null"])


def test_a_mapping_changes_what_it_names_and_leaves_the_rest() -> None:
    before = compose(["backbone=vit"]).backbone.arguments
    after = compose(
        ["backbone=vit", "backbone.arguments={depth: 3, mlp_ratio: 2.5, act_layer: relu}"]
    ).backbone.arguments
    assert before is not None
    assert after == {**before, "depth": 3, "mlp_ratio": 2.5, "act_layer": "relu"}


@pytest.mark.parametrize(
    "overrides", [["backbone=vit", "scale=cpu", "backbone.arguments={mlp_ratio: 2.0}"], [VIT, GIVEN]]
)
def test_the_options_of_such_a_configuration_give_it_again(overrides: list[str]) -> None:
    config = compose(overrides)
    assert compose(options_for(config.as_dict())) == config == Config.from_dict(config.as_dict())


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["backbone.arguments=3"], "backbone.arguments=3 is no mapping: write it as backbone.arguments={img_size"),
        (["backbone.arguments={a: {b: 1}}"], "is to be a number, true or false, text, or a list of these"),
        (["backbone.arguments={img_size: 16}"], "are of timm's models, and resnet18 is none: set backbone.name"),
        (["backbone=vit", "backbone.arguments={depth: 0}"], "depth is null or a whole number at least 1."),
        (["backbone=vit", "backbone.arguments={patch_size: 3}"], "cuts images of 16 pixels into patches of 3, which"),
        (
            ["backbone=vit", "backbone.arguments={num_classes: 9}"],
            "num_classes is not allowed: there is no classifier.",
        ),
        ([VIT, "backbone.arguments={pretrained: true}"], "pretrained is not allowed: init=FILE starts from weights"),
        (["backbone.pretrained=true"], "backbone.pretrained=true is not allowed: backbone.pretrained is null or timm."),
    ],
)
def test_what_numbers_alone_show_is_answered_before_pytorch(overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        preflight.check(compose(["dataset=digits", *overrides]))
    assert sentence in str(error.value)
    assert str(error.value).count(". ") == 0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["backbone=vit", "backbone.arguments={img_sise: 16}"], "has no argument img_sise for backbone.arguments; did"),
        (["backbone.name=timm/resnet10t", "backbone.arguments={img_size: 16}"], "resnet10t has no argument img_size"),
        (["backbone=vit", "backbone.arguments={num_heads: 3}"], "num_heads: 3, dynamic_img_size: true} (dim should be"),
        ([VIT], "takes no images of 16 pixels (Input height (16) doesn't match model (224).): set another size, or"),
        (
            [VIT, "dataset.size=40", "backbone.arguments={img_size: 40}"],
            "images of 40 pixels into patches of 16, which",
        ),
        (
            ["method=byol", VIT, GIVEN, "augment.groups.local.count=1"],
            "takes no images of 8 pixels (Input height (8) doesn't match model (16).): set another size, or",
        ),
    ],
)
def test_what_timm_refuses_is_one_sentence(overrides: list[str], sentence: str) -> None:
    config = compose(["dataset=digits", "scale=smoke", *overrides])
    with pytest.raises(UserError, match=re.escape(sentence)):
        build_method(config, build_data(config).dataset)


def test_a_vision_transformer_comes_with_adamw_and_warm_up_which_users_and_papers_recipes_overrule() -> None:
    found = compose(["backbone=vit", "scale=cpu"]).optimizer
    assert (found.name, found.lr, found.warmup, found.schedule) == ("adamw", 0.001, 0.1, "step")
    own = compose(["backbone=vit", "optimizer.lr=0.3", "optimizer.name=muon"]).optimizer
    assert (own.name, own.lr, own.warmup) == ("muon", 0.3, 0.1)
    paper = compose(["backbone=vit", "method=byol", "recipe=original"]).optimizer
    assert (paper.name, paper.lr) == ("lars", 0.2)
    vicreg = compose(["backbone=vit", "method=vicreg", "scale=paper"])  # whose own file sets warm-up and clipping
    assert (vicreg.optimizer.warmup, vicreg.trainer.clip) == (0.1, 1.0)


def test_at_scale_cpu_it_has_a_few_hundred_thousand_parameters() -> None:
    config = compose(["backbone=vit", "scale=cpu", "dataset=cifar10"])
    network, _ = build_backbone(**config.backbone.as_dict(), channels=3)
    assert 200_000 < sum(parameter.numel() for parameter in network.parameters()) < 600_000
    assert config.backbone.arguments is not None
    assert (config.backbone.arguments["img_size"], config.backbone.arguments["patch_size"]) == (32, 4)


def test_an_error_in_the_defaults_of_a_backbone_names_its_file(tmp_path: Path, program: Any) -> None:
    folder = tmp_path / "own" / "conf" / "backbone"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults: [vit, _self_]\nsets:\n  optimizer.lr: -1\n")
    done = program("backbone=mine", SSL_BENCH_PATH=str(tmp_path / "own"))
    assert "conf/backbone/mine.yaml, sets: optimizer.lr=-1 is not allowed" in done.stderr


def test_rows_state_network_and_rule() -> None:
    assert network_note(compose(["scale=cpu"]).as_dict()) is None
    note = network_note(compose(["backbone=vit", "scale=cpu", "dataset=cifar10"]).as_dict())
    assert note == (
        "timm/vit_tiny_patch16_224 (img_size 32, patch_size 4, embed_dim 96, depth 4, num_heads 3, dynamic_img_size "
        "true), adamw with lr 0.001, warm-up over 10% of the steps"
    )


def test_pretrained_is_what_init_is_unless_it_is_set() -> None:
    assert compose([VIT, "backbone.pretrained=timm"]) == compose([VIT, "init=timm"])
    assert compose([VIT, "backbone.pretrained=timm", "init=FILE"]).init == "FILE"
    assert compose(["backbone=vit"]).init is None


def test_published_weights_are_resampled_to_other_sizes_and_patches_as_timm_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    path = tmp_path / "pytorch_model.bin"
    torch.manual_seed(7)
    torch.save(timm.create_model("test_vit").state_dict(), path)
    monkeypatch.setattr(
        hub, "try_to_load_from_cache", lambda repository, name: str(path) if name == path.name else None
    )
    arguments = {"img_size": 16, "patch_size": 4}
    config = compose(["backbone.name=timm/test_vit", "backbone.arguments={img_size: 16, patch_size: 4}", "init=timm"])
    found = initial.load(config, 3)
    wanted = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay={"file": str(path)}, num_classes=0, **arguments
    )
    assert found is not None
    for name, tensor in wanted.state_dict().items():
        torch.testing.assert_close(found.backbone.state_dict()[name], tensor, rtol=0, atol=0)
    assert "resampled by timm" in initial.account(config, found)
    with pytest.raises(UserError, match="does not fit timm/test_vit"):
        initial.load(config.changed({"backbone.arguments": {"embed_dim": 32, "num_heads": 2}}), 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("vit")
    overrides = [
        "epochs=1",
        "subset=64",
        "evaluation.protocols=[knn1]",
        "evaluation.curves=[knn1]",
        f"runs_dir={folder}",
    ]
    record = run(compose(["method=simsiam", "scale=smoke", "backbone=vit", "trainer.progress=false", *overrides]))
    assert record.config["backbone"]["arguments"] == compose(["backbone=vit", "scale=smoke"]).backbone.arguments
    assert "adamw" in str(run_table(record).caption)
    return folder / record.fingerprint


def test_evaluate_gives_the_figures_of_the_record_and_embed_the_features(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["dataset=digits", "scale=smoke", "subset=64", "evaluation.protocols=[knn1]", "layers=all"]
    assert evaluate.main([str(trained), *options]) == 0
    shown = capsys.readouterr().out
    assert "blocks.0" in shown
    assert "blocks.1" in shown
    (tmp_path / "pictures").mkdir()
    picture = np.arange(20 * 24, dtype=np.uint8).reshape(20, 24)
    Image.fromarray(picture).save(tmp_path / "pictures" / "a.png")
    assert embed.main([str(trained), "pictures"]) == 0
    with torch.no_grad():
        expected = ssl_bench.load_encoder(trained)(torch.from_numpy(picture)[None, None] / 255)
    np.testing.assert_allclose(np.load("features.npy"), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_of_a_run_builds_its_network_again_and_starts_another_run(trained: Path) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    opened = open_encoder(checkpoint, name=None, stem=None, width=None, prefix=None)
    assert opened.network["arguments"] == compose(["backbone=vit", "scale=smoke"]).backbone.arguments
    own: Any = ssl_bench.load_encoder(trained)
    for name, tensor in own.backbone.state_dict().items():
        torch.testing.assert_close(opened.backbone.state_dict()[name], tensor)
    found = initial.load(compose(["backbone=vit", "scale=smoke", f"init={trained}"]), 1)
    assert found is not None
    other = compose(["backbone=vit", "scale=smoke", "backbone.arguments={depth: 3}", f"init={trained}"])
    with pytest.raises(
        UserError, match=r"another network than this run's backbone: arguments .*'depth': 2.*'depth': 3"
    ):
        initial.load(other, 1)


def of_timm(out: Path, images: torch.Tensor) -> Any:
    return timm.create_model(f"local-dir:{out}", pretrained=True).eval()(images)


def of_transformers(out: Path, images: torch.Tensor) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModel.from_pretrained(out).eval()(images).pooler_output


def of_onnx(out: Path, images: torch.Tensor) -> Any:
    session = pytest.importorskip("onnxruntime").InferenceSession(out / "encoder.onnx")
    return torch.as_tensor(session.run(None, {"images": images.numpy()})[0])


@pytest.mark.parametrize(
    ("to", "features", "package"),
    [
        ("timm", of_timm, "timm"),
        pytest.param("transformers", of_transformers, "transformers", marks=pytest.mark.slow),
        pytest.param("onnx", of_onnx, "onnxruntime", marks=pytest.mark.slow),
    ],
)
def test_other_libraries_give_the_features_of_load_encoder(
    trained: Path, tmp_path: Path, to: str, features: Any, package: str
) -> None:
    pytest.importorskip(package)
    out = tmp_path / to
    assert export.main([str(trained), f"to={to}", f"out={out}"]) == 0
    card = (out / "README.md").read_text(encoding="utf-8")
    assert re.search(r"timm/vit_tiny_patch16_224 \(.*\bdepth 2\b.*\), 1 channel, without", card)
    assert "for 1 epoch, seed 0" in card
    own: Any = ssl_bench.load_encoder(trained)
    images = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(features(out, own.clean(images)), own(images), rtol=1e-5, atol=1e-5)


def test_an_export_of_our_own_is_the_encoder_and_torchvision_has_no_transformer(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.rand(2, 1, 20, 17)
    own: Any = ssl_bench.load_encoder(trained)
    again = tmp_path / "ours"
    assert export.main([str(trained), "to=safetensors", f"out={again}"]) == 0
    other: Any = ssl_bench.load_encoder(again / "encoder.safetensors")
    with torch.no_grad():
        assert torch.equal(other(images), own(images))
    assert export.main([str(trained), "to=torchvision", f"out={tmp_path / 'out'}"]) == 2
    assert "torchvision is given ResNets only, and this is timm/vit_tiny_patch16_224" in capsys.readouterr().err


def test_a_file_of_others_needs_its_arguments_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", **SMALL).state_dict(), path)
    options = [str(path), "to=safetensors", "size=16", "backbone=timm/vit_tiny_patch16_224", f"out={tmp_path / 'out'}"]
    assert export.main(options) == 2
    assert "does not fit timm/vit_tiny_patch16_224" in capsys.readouterr().err
    assert export.main([*options, "arguments=12"]) == 2
    assert "arguments=12 is no mapping" in capsys.readouterr().err
    assert export.main([*options, GIVEN.removeprefix("backbone.")]) == 0
    assert ssl_bench.load_encoder(tmp_path / "out" / "encoder.safetensors")(torch.rand(1, 3, 9, 9)).shape == (1, 32)


def test_what_is_saved_of_other_networks_stays_as_it_was(tmp_path: Path) -> None:
    network = {"name": "timm/test_vit", "stem": "small", "width": 8, "channels": 3}
    clean = {"size": 160, "crop": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    save_encoder(tmp_path / "e.safetensors", build_backbone(**network)[0], {"backbone": network, "clean": clean})  # type: ignore[arg-type]
    opened = open_encoder(tmp_path / "e.safetensors", name=None, stem=None, width=None, prefix=None)
    assert opened.network == network
