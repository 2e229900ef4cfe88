"""Files of weights: every key is accounted for, what does not fit is refused, and nothing in a file is run."""

from __future__ import annotations

import argparse
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_bench.errors import UserError
from ssl_bench.nn.backbone import build_backbone
from ssl_bench.results.checkpoints import read_checkpoint
from ssl_bench.results.encoder import save_encoder
from ssl_bench.results.keys import compare, listed, prefixes
from ssl_bench.results.weights import LoadedEncoder, open_encoder

CLEAN = {"size": 16, "crop": 1.0, "mean": [0.3], "std": [0.4]}


def small(name: str = "resnet18", **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    network = build_backbone(name, **{"stem": "cifar", "width": 4, "channels": 3, **changes})[0]
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
    return network.eval()


def saved(path: Path, tree: Any) -> Path:
    torch.save(tree, path)
    return path


def opened(path: Path, name: str | None = None, **options: Any) -> LoadedEncoder:
    return open_encoder(path, name=name, **{"stem": None, "width": None, "prefix": None, **options})


def below(prefix: str, network: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in network.state_dict().items()}


def test_a_torchvision_file_gives_its_own_features_and_leaves_the_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = torchvision.models.resnet18().eval()
    found = opened(saved(tmp_path / "r.pth", published.state_dict()))
    assert found.network == {"name": "resnet18", "stem": "imagenet", "width": 64, "channels": 3}
    assert found.keys.left_over == ("fc.weight", "fc.bias")
    assert len(found.keys.used) == len(published.state_dict()) - 2
    images = torch.rand(2, 3, 40, 40)
    published.fc = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        torch.testing.assert_close(found.backbone(images), published(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_timm_file_gives_its_own_features_and_its_published_statistics(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    published = timm.create_model("test_resnet", pretrained=False).eval()
    path = tmp_path / f"t.{suffix}"
    if suffix == "pth":
        torch.save(published.state_dict(), path)
    else:
        save_file(published.state_dict(), path)
    found = opened(path, "timm/test_resnet")
    assert set(found.keys.left_over) == {"fc.weight", "fc.bias"}
    assert found.statistics == ([0.5] * 3, [0.5] * 3)
    images = torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        expected = published.forward_head(published.forward_features(images), pre_logits=True)
        torch.testing.assert_close(found.backbone(images), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"does not state which network it holds.*timm/<model>"):
        opened(path)


def test_gray_timm_files_are_known_by_their_shapes(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pth", timm.create_model("test_resnet", pretrained=False, in_chans=1).state_dict())
    assert opened(path, "timm/test_resnet").channels == 1


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        (None, "module."),
        (None, "backbone."),
        ("model", ""),
        ("state_dict", "encoder."),
        ("state_dict", "student.backbone."),
    ],
)
def test_wrappers_and_prefixes_are_seen_through(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    network = small()
    tree = {**below(prefix, network), "projector.0.weight": torch.ones(3, 3)}
    path = saved(tmp_path / "w.ckpt", {wrapper: tree, "epoch": 3, "optimizer": [{"lr": 0.1}]} if wrapper else tree)
    found = opened(path, stem="cifar")
    before = f"{wrapper}." if wrapper else ""
    assert found.keys.prefix == before + prefix
    assert found.keys.left_over == (f"{before}projector.0.weight",)
    assert all(map(torch.equal, found.backbone.state_dict().values(), network.state_dict().values()))


@pytest.mark.parametrize("name", ["resnet10", "resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_resnet_is_known_by_its_layers(tmp_path: Path, name: str, channels: int) -> None:
    found = opened(saved(tmp_path / "r.pth", small(name, stem="imagenet", channels=channels).state_dict()))
    assert found.network == {"name": name, "stem": "imagenet", "width": 4, "channels": channels}
    assert name in found.assumed[0]
    assert "imagenet" in found.assumed[1]


def test_a_stem_that_shapes_do_not_show_is_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "r.pth", small(stem="small").state_dict())
    with pytest.raises(UserError, match=r"set backbone\.stem= \(of embed: stem=\) to cifar .* to small if"):
        opened(path)
    assert opened(path, stem="small").network["stem"] == "small"


def test_what_is_set_for_a_resnet_is_not_assumed(tmp_path: Path) -> None:
    found = opened(saved(tmp_path / "r.pth", small(stem="small").state_dict()), "resnet18", stem="small")
    assert found.assumed == ()
    assert found.network["stem"] == "small"


def test_of_two_networks_in_a_file_one_must_be_chosen(tmp_path: Path) -> None:
    one, other = small(), small(stem="imagenet")
    path = saved(tmp_path / "m.pth", {"state_dict": {**below("encoder_q.", one), **below("encoder_k.", other)}})
    with pytest.raises(UserError, match=r"2 networks alike, below state_dict.encoder_q., state_dict.encoder_k."):
        opened(path)
    assert opened(path, prefix="state_dict.encoder_k").network["stem"] == "imagenet"
    assert opened(path, prefix="state_dict.encoder_q.", stem="cifar").network["stem"] == "cifar"


@pytest.mark.parametrize("named", [None, "resnet18"])
def test_missing_keys_are_named(tmp_path: Path, named: str | None) -> None:
    state = small().state_dict()
    del state["layer4.1.bn2.running_var"], state["layer1.0.conv1.weight"]
    with pytest.raises(UserError, match=r"nothing for layer1.0.conv1.weight, layer4.1.bn2.running_var\."):
        opened(saved(tmp_path / "r.pth", state), named)


def test_files_without_batch_counters_fit(tmp_path: Path) -> None:
    state = {key: value for key, value in small().state_dict().items() if "num_batches" not in key}
    assert opened(saved(tmp_path / "r.pth", state), stem="cifar").keys.fits


def test_shapes_and_types_that_differ_are_named(tmp_path: Path) -> None:
    state = small().state_dict()
    state["layer2.0.conv1.weight"] = torch.ones(8, 5, 3, 3)
    state["bn1.bias"] = torch.ones(4, dtype=torch.int8)
    with pytest.raises(
        UserError,
        match=r"bn1.bias is of torch.int8 where .*float32 is wanted; layer2.0.conv1.weight is 8×5×3×3 where 8×4×3×3 is",
    ):
        opened(saved(tmp_path / "r.pth", state))


@pytest.mark.parametrize("named", [None, "resnet18"])
def test_layers_that_the_network_has_not_make_it_another_network(tmp_path: Path, named: str | None) -> None:
    state = {**small("resnet34").state_dict(), "layer3.6.conv1.weight": torch.ones(16, 16, 3, 3)}
    with pytest.raises(UserError, match=r"the network has no layer[13]"):
        opened(saved(tmp_path / "r.pth", state), named)


def test_a_first_layer_that_is_no_stem_of_ours_is_refused(tmp_path: Path) -> None:
    state = {**small().state_dict(), "conv1.weight": torch.ones(4, 3, 5, 5)}
    with pytest.raises(UserError, match=r"conv1.weight is 4×3×5×5, and one of 7×7 or 3×3"):
        opened(saved(tmp_path / "r.pth", state))


def test_our_own_file_states_what_it_is_and_bears_no_contradiction(tmp_path: Path) -> None:
    network = {"name": "resnet18", "stem": "small", "width": 4, "channels": 1}
    path = tmp_path / "mine.safetensors"
    save_encoder(path, small(stem="small", channels=1), {"backbone": network, "clean": CLEAN, "fingerprint": "abc"})
    found = opened(path)
    assert (found.network, found.clean, found.fingerprint, found.assumed) == (network, CLEAN, "abc", ())
    assert found.keys.used == tuple(found.backbone.state_dict())
    with pytest.raises(UserError, match="states itself what network it holds: leave backbone and stem out"):
        opened(path, "resnet18", stem="cifar")


def fills(path: Path, network: nn.Module) -> LoadedEncoder:
    found = opened(path, stem="cifar")
    assert all(map(torch.equal, found.backbone.state_dict().values(), network.state_dict().values()))
    return found


@pytest.mark.parametrize("numbers", [(4, 5, 6, 7), (2, 3, 4, 5)], ids=["torchvision", "lightly"])
@pytest.mark.parametrize("before", ["state_dict.backbone.", ""])
def test_numbered_layers_of_a_sequential_get_their_names_back(
    tmp_path: Path, numbers: tuple[int, ...], before: str
) -> None:
    network = small()
    names = {"conv1": 0, "bn1": 1} | {f"layer{stage}": number for stage, number in enumerate(numbers, 1)}
    state = {}
    for name, value in network.state_dict().items():
        first, _, rest = name.partition(".")
        state[f"{before}{names[first]}.{rest}"] = value
    state["projection_head.layers.0.weight"] = torch.ones(3, 3)
    found = fills(saved(tmp_path / "s.ckpt", state), network)
    assert set(found.keys.used) == {*state} - {"projection_head.layers.0.weight"}  # as the file has them
    assert "numbered" in found.assumed[-1]


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_what_wrappers_put_into_names_is_seen_through(tmp_path: Path, wrapper: str) -> None:
    network = small()
    state = {name.replace("layer2.", f"layer2.{wrapper}."): value for name, value in network.state_dict().items()}
    state = {f"module.{wrapper}.{name}": value for name, value in state.items()}
    found = fills(saved(tmp_path / "c.pth", state), network)
    assert (set(found.keys.used), found.keys.left_over) == ({*state}, ())


def test_plain_values_beside_weights_are_not_read_and_disturb_nothing(tmp_path: Path) -> None:
    network = small()
    for number, extra in enumerate(
        [
            {"accuracy": np.float64(0.5), "epoch": np.int64(3), "losses": np.arange(3.0)},
            {"args": argparse.Namespace(lr=0.1), "out": Path("somewhere")},
            {"best": np.float32(1), "words": np.array(["a", "b"]), "state": np.random.RandomState(0).get_state()},
        ]
    ):
        for zipped in (True, False):
            path = tmp_path / f"{number}{zipped}.pth"
            torch.save({"state_dict": network.state_dict(), **extra}, path, _use_new_zipfile_serialization=zipped)
            fills(path, network)


def test_tensors_without_plain_numbers_are_refused(tmp_path: Path) -> None:
    for value, why in ((torch.ones(4).to_sparse(), "sparse"), (torch.ones(4, device="meta"), "a meta tensor")):
        state = {**small().state_dict(), "bn1.weight": value}
        with pytest.raises(UserError, match=rf"does not fit .* bn1.weight is .*{why}"):
            opened(saved(tmp_path / "w.pth", state))


def test_a_program_of_torchscript_is_called_so(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "scripted.pt")
    with pytest.raises(UserError, match="is a TorchScript program and no file of weights"):
        opened(tmp_path / "scripted.pt")


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = {"state_dict": small().state_dict(), "extra": Attack()}
    torch.save(tree, tmp_path / "zip.pth")
    torch.save(tree, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(tree["extra"]))
    for name in ("zip", "old", "bare"):
        with pytest.raises(
            UserError, match=rf"{name}.pth is (not read, for beside weights it holds \w+.system|damaged)"
        ):
            read_checkpoint(tmp_path / f"{name}.pth")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_sentence(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"w.{suffix}"
    if suffix == "pth":
        torch.save(small().state_dict(), path)
    else:
        save_file(small().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"is damaged or no file of weights") as caught:
        opened(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tree", [{"epoch": 3}, [1, 2], torch.ones(3), {}])
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, tree: Any) -> None:
    with pytest.raises(UserError, match="holds no tensors by name"):
        opened(saved(tmp_path / "w.pth", tree))


def test_a_folder_without_an_encoder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"encoder.safetensors does not exist: give a finished run's folder"):
        opened(tmp_path)


def test_a_size_that_the_network_does_not_take_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "v.pth", timm.create_model("vit_tiny_patch16_224", pretrained=False).state_dict())
    found = opened(path, "timm/vit_tiny_patch16_224")
    found.require_size(224)
    with pytest.raises(UserError, match=r"takes no images of 32 pixels \(.*224.*\): set another size"):
        found.require_size(32)


def test_a_prefix_that_nothing_stands_below_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", below("module.", small()))
    with pytest.raises(UserError) as error:
        opened(path, prefix="foo")
    assert str(error.value) == f"{path} has no tensor of resnet18 below prefix=foo; prefix=module has some."
    saved(path, small().state_dict())
    with pytest.raises(UserError, match="below prefix=foo; without one there are some"):
        opened(path, prefix="foo")


def test_the_prefix_is_what_stands_before_most_names() -> None:
    wanted = ["conv.weight", "layer.0.conv.weight", "bias"]
    assert prefixes(["a.conv.weight", "a.layer.0.conv.weight", "b.bias"], wanted) == ["a."]
    assert prefixes(["conv.weight", "bias"], wanted) == [""]
    assert prefixes(["x.bias", "y.bias"], wanted) == ["x.", "y."]
    assert prefixes(["x.y"], wanted) == []


def test_every_name_is_accounted_for_once() -> None:
    one = torch.ones(1)
    wanted = {"a.weight": one, "a.bias": one, "b.num_batches_tracked": torch.tensor(0), "c.weight": torch.ones(2)}
    names = ["m.a.weight", "m.c.weight", "m.a.extra", "m.head.weight", "other", "m.a.head.weight"]
    found = compare(dict.fromkeys(names, one), wanted, prefix="m.", classifier=("a.head",))
    assert found.used == ("m.a.weight",)
    assert found.missing == ("a.bias",)
    assert found.misshapen == ("m.c.weight is 1 where 2 is wanted",)
    assert found.left_over == ("m.a.extra", "m.head.weight", "other", "m.a.head.weight")
    assert found.surplus == ("m.a.extra",)
    assert not found.fits


def test_many_names_are_listed_in_groups() -> None:
    assert listed(["a.b", "c"]) == "a.b, c"
    many = [f"net.{layer}.{part}.weight" for layer in ("one", "two") for part in range(5)]
    assert listed([*many, "fc"]) == "net.one.* (5), net.two.* (5), fc"
    assert listed(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"
