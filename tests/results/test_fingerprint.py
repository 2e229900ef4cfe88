"""Equal runs share a name; runs with other numbers do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssl_bench.config.compose import compose
from ssl_bench.config.options import GROUPS, comments
from ssl_bench.results import fingerprint as module
from ssl_bench.results.fingerprint import fingerprint
from ssl_bench.results.record import Record


def name(*overrides: str, digest: str = "d", precision: str = "32-true") -> str:
    return fingerprint(compose(overrides).as_dict(), data_digest=digest, precision=precision)


@pytest.mark.parametrize(
    "override",
    [
        "runs_dir=elsewhere",
        "data_dir=elsewhere",
        "logger=wandb",
        "trainer.accelerator=cpu",
        "trainer.devices=3",
        "trainer.nodes=2",
        "trainer.timeout=5",
        "trainer.sync_batchnorm=false",
        "trainer=ddp",
        "trainer.checkpoint_seconds=5",
        "trainer.progress=false",
        "trainer.threads=1",
        "dataset.resident=false",
        "evaluation.memory=1048576",
        "epochs=40",
        "scale.batch_size=64",
    ],
)
def test_where_and_how_a_run_is_watched_does_not_change_its_name(override: str) -> None:
    assert name(override) == name()


@pytest.mark.parametrize(("scale", "now", "first"), [("cpu", 5, 2), ("paper", 10, 1)])
def test_a_name_does_not_show_that_the_live_monitor_measured_more_often_at_first(
    scale: str, now: int, first: int
) -> None:
    assert compose([f"scale={scale}"]).monitor_every == now
    assert name(f"scale={scale}") == name(f"scale={scale}", f"monitor_every={first}")
    assert name(f"scale={scale}") != name(f"scale={scale}", "monitor_every=3")
    assert name(f"monitor_every={now}") != name(f"monitor_every={first}")  # another scale


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "epochs=31",
        "batch_size=32",
        "method=simclr",
        "method.lookahead=3",
        "optimizer.lr=0.1",
        "dataset=fashion_mnist",
        "scale=cpu",
        "subset=500",
        "labels=100",
        "eval_on=fashion_mnist",
        "augment.groups.global.flip=0.5",
        "backbone.width=8",
        "evaluation.linear.epochs=3",
        "eval_every=3",
        "trainer.clip=1.0",
        "trainer.accumulate=2",
        "trainer.deterministic=true",
        "trainer.compile=true",
    ],
)
def test_what_changes_the_numbers_changes_the_name(override: str) -> None:
    assert name(override) != name()


def test_pictures_in_memory_or_packed_do_not_change_the_name() -> None:
    overrides = ("dataset=folder", "dataset.root=somewhere")
    assert name(*overrides, "dataset.memory=0.5") == name(*overrides)
    assert name(*overrides, "dataset.stored=96") != name(*overrides)


def test_data_precision_and_numerics_are_part_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    base = name()
    assert name(digest="e") != base
    assert name(precision="bf16-mixed") != base
    assert name("trainer.precision=32-true") == base  # resolved, not as asked for
    monkeypatch.setattr(module, "NUMERICS", module.NUMERICS + 1)
    assert name() != base


def test_shares_of_the_batch_with_statistics_of_their_own_are_part_of_the_name() -> None:
    config = compose([]).as_dict()
    names = [fingerprint(config, data_digest="d", precision="32-true", statistics_shares=n) for n in (1, 2, 3)]
    assert len(set(names)) == 3
    assert names[0] == name()


def test_a_gpu_s_run_has_another_name() -> None:
    config = compose([]).as_dict()
    alike = {"data_digest": "d", "precision": "32-true"}
    assert fingerprint(config, **alike, device="cpu") == name() != fingerprint(config, **alike, device="cuda")


def test_options_of_fine_tuning_count_where_a_protocol_reads_them() -> None:
    options = (
        "evaluation.finetune.steps=7",
        "evaluation.finetune.flip=0.5",
        "evaluation.finetune.learning_rates=[1.0]",
    )
    for option in options:
        assert name(option) == name()
    for protocol in ("finetune", "finetune_1percent", "finetune_10percent"):
        asked = f"evaluation.protocols=[knn1,{protocol}]"
        assert len({name(), name(asked), *(name(asked, option) for option in options)}) == 5


def test_two_ways_to_write_the_same_number_give_the_same_name() -> None:
    assert name("epochs=12") == name("dataset.epochs=12")


def test_a_key_added_later_is_left_out_while_neutral(monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = compose([]).as_dict()
    old = fingerprint(config, data_digest="d", precision="32-true")
    config["method"]["symmetric"] = True
    assert fingerprint(config, data_digest="d", precision="32-true") != old
    monkeypatch.setitem(module.NEUTRAL, "method.symmetric", True)
    assert fingerprint(config, data_digest="d", precision="32-true") == old
    config["method"]["symmetric"] = False
    assert fingerprint(config, data_digest="d", precision="32-true") != old


RECORDS = sorted((Path(__file__).parents[2] / "experiments").glob("*/records/*.json"))


def test_committed_records_keep_the_names_of_their_runs() -> None:
    records = [Record.from_json(json.loads(file.read_text(encoding="utf-8"))) for file in RECORDS]
    assert len(records) > 100
    assert [found.run_fingerprint for found in records] == [found.fingerprint for found in records]


def test_every_key_that_is_left_out_is_an_option_or_a_group_and_no_marker_is_misspelt() -> None:
    files = [(f"{group}/{choice}.yaml", group) for group in GROUPS for choice in GROUPS[group]]
    known = {
        key: comment for file, group in [("config.yaml", ""), *files] for key, comment in comments(file, group).items()
    }
    assert module.LEFT_OUT | set(module.NEUTRAL) <= {*known, *GROUPS}
    assert not [key for key, (_, meaning) in known.items() if "{" in meaning]
    assert {"logger", "experiment", "trainer.threads", "recipe", "dataset.fold"} <= module.LEFT_OUT
    assert module.NEUTRAL == {
        "eval_on": None,
        "trainer.deterministic": False,
        "trainer.compile": False,
        "method.codes": "soft",
        "method.stop_gradient": True,
        "method.objective": "nt_xent",
        "method.normalize": True,
        "method.margin": 0.8,
        "method.softmax": "cosine",
        "method.weight_correction": True,
        "evaluation.projector": False,
    }


def test_a_recipe_counts_by_its_values_not_by_its_name() -> None:
    assert name("method=supervised", "recipe=original") == name("method=supervised")
    assert name("method=clbo", "recipe=original") == name("method=clbo", "method.epoch_unit=teacher")
    assert name("method=byol", "recipe=original") != name("method=byol")
