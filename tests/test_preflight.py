"""What is wrong with a run by its options alone."""

from __future__ import annotations

import pytest

from ssl_bench.conditions import require_a_batch
from ssl_bench.config.compose import compose
from ssl_bench.config.options import GROUPS
from ssl_bench.data.catalog import DATASETS
from ssl_bench.data.sizes import TRAIN
from ssl_bench.errors import UserError
from ssl_bench.training import preflight


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trainer.devices=3"], "cannot be divided equally among them: choose a multiple of 3"),
        (["trainer.devices=3", "trainer.nodes=2", "batch_size=96"], None),
        (["trainer.devices=3", "trainer.nodes=2", "batch_size=99"], "choose a multiple of 6"),
        (["dataset=folder"], "dataset=folder needs to know where the pictures are"),
        (["dataset=folder", "dataset.root=nowhere"], None),  # a machine's own matter
        (["batch_size=1438", "subset=null"], None),  # a few less are left, which labels tell
        (["batch_size=1439", "subset=null"], "is larger than the 1438 images to train on: choose at most 1438"),
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
def test_what_options_alone_rule_out_is_one_sentence(words: list[str], sentence: str | None) -> None:
    config = compose(words)
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
        assert not list(preflight.advice(config, config["subset"] or 1295))


def test_a_queue_longer_than_the_data_and_threads_without_cores_are_shown() -> None:
    config = compose(["method=moco", "dataset=folder", "dataset.root=x", "dataset.queue=4096", "trainer.threads=999"])
    queue, threads = preflight.advice(config, 42)
    assert queue.startswith("method.queue=4096 is more than the 42 images, so that images meet earlier embeddings")
    assert threads.startswith("trainer.threads=999 is more than the ")
    assert len(list(preflight.advice(config, 4096))) == 1
    assert not list(preflight.advice(compose(["method=simclr", "trainer.threads=1"]), 1))


def test_sizes_are_those_of_the_catalog() -> None:
    assert {name: entry.train for name, entry in DATASETS.items() if entry.train} == TRAIN


@pytest.mark.parametrize(
    ("images", "remedy"), [(1, "use 2 images at least."), (0, "use 2 images"), (2, "choose at most 2, or more images.")]
)
def test_nobody_is_told_to_choose_a_batch_of_less_than_two(images: int, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        require_a_batch(16, images)
