"""What is wrong with a run by its options alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ssl_bench.conditions import require_a_batch
from ssl_bench.config.compose import compose, compose_cells
from ssl_bench.config.experiments import find
from ssl_bench.config.options import GROUPS, block_of, typed
from ssl_bench.data.catalog import load, stl10_with
from ssl_bench.data.facts import FACTS, STL10
from ssl_bench.data.splits import SPLIT_SEED, VALIDATION_FRACTION, hold_out, parts
from ssl_bench.errors import UserError
from ssl_bench.training import preflight
from ssl_bench.training.build import build


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["trainer.devices=3"], "cannot be divided equally among them: choose a multiple of 3"),
        (["trainer.devices=3", "trainer.nodes=2", "batch_size=96"], None),
        (["trainer.devices=3", "trainer.nodes=2", "batch_size=99"], "choose a multiple of 6"),
        (["eval_on=digits"], "eval_on=digits is the dataset of the run"),
        (["eval_on=cifar10"], "eval_on=cifar10 has images of 3 channels, but the network takes the 1 of digits"),
        (["eval_on=fashion_mnist"], None),
        (["dataset=stl10", "eval_on=digits"], None),
        (["dataset=folder"], "dataset=folder needs to know where the pictures are"),
        (["dataset=folder", "dataset.root=nowhere"], None),  # a machine's own matter
        (["batch_size=1295", "subset=null"], None),
        (["batch_size=1296", "subset=null"], "is larger than the 1295 images to train on: choose at most 1295"),
        (["batch_size=1438", "scale=paper"], None),
        (["batch_size=1439", "scale=paper"], "is larger than the 1438 images to train on: choose at most 1438"),
        (["dataset=imagenet100", "batch_size=114070", "subset=null"], None),
        (["dataset=imagenet100", "batch_size=114071", "subset=null"], "is larger than the 114070 images to train on"),
        (["dataset=imagenet100", "batch_size=126689", "scale=paper"], None),  # where none are held out
        (["batch_size=64", "subset=200", "trainer.accumulate=3"], None),
        (["dataset=folder", "dataset.root=x", "subset=null", "trainer.accumulate=100"], None),  # not known before
        (["batch_size=64", "subset=50"], "is larger than the 50 images to train on: choose at most 50"),
        (["subset=1439"], "subset=1439 is more than the 1,438 training images of digits"),
        (["labels=1439"], "labels=1439 is more than the 1,438 training images of digits"),
        (["dataset=folder", "dataset.root=x", "subset=9999999"], None),
        (["augment.groups.local.size=64"], None),  # there are none
        (
            ["augment.groups.local.size=64", "augment.groups.local.count=1"],
            "size=64 is larger than the 16 pixels",
        ),
        (["evaluation.protocols=[]"], "evaluation.protocols=[] leaves nothing to score"),
        (["trainer.precision=16-mixed"], None),  # there may be a GPU
        (["trainer.precision=16-mixed", "trainer.accelerator=cpu"], "needs a GPU"),
    ],
)
def test_what_options_alone_rule_out_is_one_sentence(overrides: list[str], sentence: str | None) -> None:
    config = compose(overrides)
    if sentence is None:
        preflight.check(config)
    else:
        with pytest.raises(UserError) as error:
            preflight.check(config)
        assert sentence in str(error.value)


@pytest.mark.parametrize("dataset", GROUPS["dataset"])
def test_every_dataset_may_begin(dataset: str) -> None:
    root = ["dataset.root=x"] if dataset == "folder" else []
    preflight.check(compose([f"dataset={dataset}", "scale=paper", *root]))


@pytest.mark.parametrize("method", ["moco", "moby"])
def test_no_default_is_advised_against(method: str) -> None:
    for scale in GROUPS["scale"]:
        config = compose([f"method={method}", f"scale={scale}"])
        assert not list(preflight.advice(config, config.subset or 1295))


def test_a_queue_longer_than_the_data_and_threads_without_cores_are_shown() -> None:
    config = compose(["method=moco", "dataset=folder", "dataset.root=x", "dataset.queue=4096", "trainer.threads=999"])
    queue, threads = preflight.advice(config, 42)
    assert queue.startswith("method.queue=4096 is more than the 42 images, so that images meet earlier embeddings")
    assert threads.startswith("trainer.threads=999 is more than the ")
    assert len(list(preflight.advice(config, 4096))) == 1
    assert not list(preflight.advice(compose(["method=simclr", "trainer.threads=1"]), 1))


def test_what_of_swav_never_acts_is_shown() -> None:
    def shown(*overrides: str) -> list[str]:
        words = ["method=swav", "scale=smoke", "epochs=3", "batch_size=16", "method.queue=64"]
        given = {word.partition("=")[0]: word for word in (*words, *overrides)}
        return list(preflight.advice(compose(list(given.values())), 80))

    (late,) = shown("method.queue_from=4")
    assert late == (
        "method.queue=64 is never read: it would be from epoch method.queue_from=4 on, once 4 batches have filled it, "
        "and there are 3 epochs of 5."
    )
    assert not shown("method.queue_from=3", "method.freeze_epochs=2")
    assert not shown("method.queue_from=1", "method.queue=80", "epochs=2")
    assert "once 5 batches have filled it" in shown("method.queue_from=1", "method.queue=80", "epochs=1")[0]
    (rest,) = shown("method.queue_from=1", "method.freeze_epochs=3")
    assert rest.startswith("method.freeze_epochs=3 lets the prototypes rest in all of the epochs=3")


@pytest.mark.parametrize("scale", GROUPS["scale"])
def test_the_queue_of_the_experiment_on_queues_is_read(scale: str) -> None:
    for config in compose_cells(find("swav_queue").cells(scale)):
        images = preflight.pretraining_images(config)
        assert not [sentence for sentence in preflight.advice(config, images or 0) if "never" in sentence]


def test_that_shared_norms_break_compiled_graphs_is_shown() -> None:
    overrides = ["trainer.devices=2", "trainer.sync_batchnorm=true", "trainer.compile=true"]
    (shown,) = preflight.advice(compose(overrides), 1000)
    assert shown.startswith("trainer.compile=true compiles only what lies between norms that several devices share:")
    for other in ("trainer.devices=1", "trainer.sync_batchnorm=false", "trainer.compile=false"):
        key = other.partition("=")[0]
        assert not list(
            preflight.advice(compose([*(override for override in overrides if key not in override), other]), 1000)
        )


@pytest.mark.parametrize("split", STL10)
@pytest.mark.parametrize("fold", [None, 0])
def test_a_batch_may_be_all_that_stl10_has_without_validation(split: str, fold: int | None) -> None:
    dataset = stl10_with(split, fold)
    labels = torch.full((dataset.train,), -1)
    labels[: 5000 if fold is None else 1000] = torch.arange(5000 if fold is None else 1000) % 10
    divided = parts(
        labels,
        subset_size=None,
        label_count=None,
        hold_out_validation=True,
        pretraining_from=dataset.pretraining_from,
    )
    images = len(divided.pretraining)
    overrides = ["dataset=stl10", f"dataset.split={split}", f"dataset.fold={typed(fold)}", "subset=null"]
    preflight.check(compose([*overrides, f"batch_size={images}"]))
    with pytest.raises(UserError, match=f"is larger than the {images} images to train on"):
        preflight.check(compose([*overrides, f"batch_size={images + 1}"]))


@pytest.mark.parametrize("dataset", sorted(name for name, facts in FACTS.items() if facts.held_out and facts.height))
def test_so_many_images_are_held_out(dataset: str, tmp_path: Path) -> None:
    equal = torch.arange(FACTS[dataset].train) % FACTS[dataset].classes
    labels = load(dataset, tmp_path)["train"].labels if dataset == "digits" else equal
    assert len(hold_out(labels, VALIDATION_FRACTION, SPLIT_SEED)[1]) == FACTS[dataset].held_out


SINGLE = ["trainer.devices=2", "batch_size=2", "trainer.sync_batchnorm=false"]
LATE = [
    (["method=moco", "method.queue=100"], "method.queue=100 is not a multiple of the "),
    (["method=moby", "method.queue=100"], "method.queue=100 is not a multiple of the "),
    (["method=swav", "method.queue=100"], "method.queue=100 is not a multiple of the "),
    (
        ["method=pic", "optimizer.name=adamw"],
        "PIC trains its instance weights by SGD, not adamw: use optimizer.name=sgd or muon.",
    ),
    (["method=pic", "trainer.precision=16-mixed"], "PIC updates its instance weights outside the optimiser"),
    (["augment.groups.global.crop_scale=[0.9,0.4]"], "crop_scale is (0.9, 0.4); set it to a range (low, high)"),
    (["augment.groups.global.crop_scale=[0.9]"], "crop_scale is (0.9,); set it to a range (low, high)"),
    (["augment.groups.global.crop_ratio=[2,1]"], "crop_ratio is (2.0, 1.0); set it to a range (low, high)"),
    (["augment.groups.global.blur_sigma=[2,1]"], "blur_sigma is (2.0, 1.0); set it to a range (low, high)"),
    (
        ["augment.groups.local.count=1", "augment.groups.local.crop_scale=[0.9,0.4]"],
        "crop_scale is (0.9, 0.4); set it to a range (low, high)",
    ),
    (
        ["augment.groups.local.count=1", "augment.groups.local.size=16", "augment.groups.global.size=8"],
        "sizes are [8, 8, 16]; put the largest views first.",
    ),
    (["batch_size=1296", "subset=null"], "batch_size=1296 is larger than the 1295 images to train on"),
    (
        ["batch_size=64", "subset=200", "trainer.accumulate=4"],
        "trainer.accumulate=4 is more than the batches of an epoch: 200 images make 3 of batch_size=64. Choose at "
        "most 3, or a smaller batch_size.",
    ),
    (["method.lookahead_batch=same_batch", "trainer.accumulate=2"], "would pile up the gradients of these runs"),
    (["method.lookahead_batch=same_images", "trainer.accumulate=2"], "would pile up the gradients of these runs"),
    ([*SINGLE, "method.concat_views=false"], "batch_size=2 leaves each device a single image"),
    ([*SINGLE, "method=byol", "method.concat_views=true"], "batch_size=2 leaves each device a single image"),
    ([*SINGLE, "method=directpred", "method.kind=two_layer", "method.concat_views=true"], "batch_size=2 leaves each"),
    ([*SINGLE, "method=directpred", "method.concat_views=false"], "batch_size=2 leaves each"),
    ([*SINGLE, "method=pic", "method.concat_views=true"], "batch_size=2 leaves each device a single image"),
    *(
        ([f"method={method}", f"augment.groups.global.count={count}"], "full-size view(s), but the augmentation makes")
        for method in GROUPS["method"]
        for count in ({1: 2, 2: 1}.get(block_of(method, "needs").get("full_size_views", 0)),)
        if count is not None
    ),
    *(
        ([f"method={method}", "augment.groups.local.count=2"], "compares full-size views only")
        for method in GROUPS["method"]
        if block_of(method, "needs").get("smaller_views") is False
    ),
]


def test_of_imagenet100_at_least_so_many_are_held_out() -> None:
    sizes = torch.full((100,), FACTS["imagenet100"].train // 100)
    sizes[:89] += 1
    sizes[::2] -= 4  # each class is rounded by itself, here down
    sizes[1::2] += 4
    labels = torch.arange(100).repeat_interleave(sizes)
    assert len(labels) == FACTS["imagenet100"].train
    assert len(hold_out(labels, VALIDATION_FRACTION, SPLIT_SEED)[1]) >= FACTS["imagenet100"].held_out


@pytest.mark.parametrize(("overrides", "sentence"), LATE)
def test_what_the_parts_refuse_is_refused_before_them_in_the_same_sentence(
    overrides: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose([*overrides, "dataset=digits"])
    with pytest.raises(UserError) as early:
        preflight.check(config)
    assert sentence in str(early.value)

    def begin() -> None:
        method, data = build(config)
        chosen = config.trainer
        trainer = SimpleNamespace(precision=chosen.precision, accumulate_grad_batches=chosen.accumulate)
        monkeypatch.setattr(type(method), "trainer", trainer)
        method.require_batch(config.batch_size // chosen.processes)
        method.on_fit_start()
        data.train_dataloader()

    with pytest.raises(UserError) as late:
        begin()
    assert str(late.value) == str(early.value)


@pytest.mark.parametrize("method", GROUPS["method"])
def test_several_sizes_of_views_pass_where_the_method_takes_them(method: str) -> None:
    views = block_of(method, "needs").get("smaller_views", True)
    preflight.check(compose([f"method={method}", f"augment.groups.local.count={2 if views else 0}"]))


@pytest.mark.parametrize(
    "overrides",
    [
        ["method.lookahead_batch=same_batch"],
        ["method.lookahead_batch=same_batch", "method.lookahead=1", "trainer.accumulate=2"],
        ["method.lookahead_batch=fresh", "trainer.accumulate=2"],
        [*SINGLE[:2], "trainer.sync_batchnorm=true", "method.concat_views=false"],
        [*SINGLE, "method.concat_views=true"],
        [*SINGLE, "method=directpred", "method.concat_views=true"],
        [*SINGLE, "method=directpred", "method.kind=linear", "method.concat_views=true"],
        [*SINGLE, "batch_size=4", "method.concat_views=false"],
    ],
)
def test_what_the_parts_take_passes(overrides: list[str]) -> None:
    preflight.check(compose(list({override.partition("=")[0]: override for override in overrides}.values())))


def test_a_mistake_in_options_is_answered_without_torch(tmp_path: Path) -> None:
    script = "import sys; from ssl_bench.cli.run import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", script, "method=moco", "method.queue=100"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "method.queue=100 is not a multiple" in done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("images", "remedy"), [(1, "use 2 images at least."), (0, "use 2 images"), (2, "choose at most 2, or more images.")]
)
def test_nobody_is_advised_to_choose_a_batch_of_less_than_two(images: int, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        require_a_batch(16, images)


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        (None, "nowhere.Doe", "there is no module nowhere beside conf/"),
        ("def made():\n    Doer = 1", "doe_local.Doer", "doe_local has no class Doer"),
        ("class Doers: pass", "doe_at_hand.Doer", r"doe_at_hand has no class Doer; did you mean Doers\?"),
        ("x y", "doe_broken.Doe", r"doe_broken\.py, line 1: invalid syntax"),
    ],
)
def test_a_method_whose_class_is_not_to_be_found_is_refused(
    source: str | None, target: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    if source is not None:
        (tmp_path / f"{target.partition('.')[0]}.py").write_text(source)
    with pytest.raises(UserError, match=sentence):
        preflight.check(compose([]).changed({"method.target": target}))


@pytest.mark.parametrize(
    "source",
    [
        "Doe = type('Doe', (), {})",
        "from json import *",
        "if True:\n    class Doe: pass",
    ],
    ids=["assigned", "imported by star", "in a branch"],
)
def test_a_class_may_come_about_otherwise_than_by_a_statement_of_its_own(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"doe_{abs(hash(source))}"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{module}.py").write_text(source)
    preflight.check(compose([]).changed({"method.target": f"{module}.Doe"}))
