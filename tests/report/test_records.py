"""Records in folders: which belong to a table, which are refused, which are no records."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_up import PROTOCOLS, cells_of, keep, record, records_of

from ssl_bench.config.compose import compose
from ssl_bench.config.experiments import Cell
from ssl_bench.errors import UserError
from ssl_bench.evaluation.baselines import versions
from ssl_bench.report.provenance import command, provenance
from ssl_bench.report.records import Run, match, read
from ssl_bench.results.code import code_digest
from ssl_bench.results.record import Record
from ssl_bench.results.run_folder import RunFolder

Made = tuple[list[Cell], list[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def made() -> Made:
    """Two seeds of MoCo on digits: cells, configurations and records."""
    cells, configs = cells_of("table3", methods=["moco"], seeds=[0, 1])
    return cells, configs, [record(cell, config) for cell, config in zip(cells, configs, strict=True)]


def matched(made: Made, folder: Path, committed: str | None = None) -> list[Run]:
    return match(made[0], made[1], read(folder, committed))


def test_records_are_matched_by_what_was_asked_for(made: Made, tmp_path: Path) -> None:
    others, other_configs = cells_of("table3", methods=["byol"], seeds=[0, 1])
    keep(tmp_path, [*made[2], *(record(*pair) for pair in zip(others, other_configs, strict=True))])
    runs = matched(made, tmp_path)
    assert [run.record for run in runs] == records_of(made[2])
    assert all(run.failure is None for run in runs)


def test_committed_records_count_as_runs_do_and_copies_of_a_run_are_one(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "trials" / "views" / "records"  # as deep as one likes
    folder.mkdir(parents=True)
    for one in made[2]:
        (folder / f"{one['fingerprint']}.json").write_text(json.dumps(one), encoding="utf-8")
    pattern = f"{tmp_path}/experiments/**/records"
    assert [run.record for run in matched(made, tmp_path / "runs", pattern)] == records_of(made[2])
    keep(tmp_path / "runs", made[2])
    assert [run.record for run in matched(made, tmp_path / "runs", pattern)] == records_of(made[2])


def commit(folder: Path, one: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{one['fingerprint']}.json").write_text(json.dumps(one), encoding="utf-8")


def test_a_run_of_ones_own_counts_before_a_committed_record_of_it_which_is_noted(made: Made, tmp_path: Path) -> None:
    keep(tmp_path / "runs", made[2][:2])
    commit(tmp_path / "a" / "records", record(made[0][0], made[1][0], percent=12.5))
    commit(tmp_path / "b" / "records", made[2][1])
    runs = matched(made, tmp_path / "runs", f"{tmp_path}/*/records")
    assert [run.record for run in runs[:2]] == records_of(made[2][:2])
    assert [run.differs for run in runs[:2]] == [True, False]
    assert "1 of these runs are one's own, with other results than the committed" in "\n".join(provenance(runs))
    assert "one's own" not in "\n".join(provenance(runs[1:]))


def test_runs_of_ones_own_under_a_newer_protocol_count_once_all_committed_ones_are_replaced(
    made: Made, tmp_path: Path
) -> None:
    newer = [
        record(*pair, protocols={**dict.fromkeys(PROTOCOLS, 1), "linear": 2}) for pair in zip(*made[:2], strict=True)
    ]
    for number, one in enumerate(made[2]):
        commit(tmp_path / str(number) / "records", one)
    keep(tmp_path / "runs", newer[1:])
    pattern = f"{tmp_path}/*/records"
    with pytest.raises(UserError, match="the version of protocol linear differs"):
        matched(made, tmp_path / "runs", pattern)
    keep(tmp_path / "runs", newer)
    assert [run.record for run in matched(made, tmp_path / "runs", pattern)] == records_of(newer)


def test_a_table_is_of_one_kind_of_device(made: Made, tmp_path: Path) -> None:
    of_gpu = [record(cell, config, device="cuda") for cell, config in zip(made[0], made[1], strict=True)]
    committed = f"{tmp_path}/*/records"
    commit(tmp_path / "a" / "records", made[2][0])
    commit(tmp_path / "b" / "records", made[2][1])
    assert [run.record for run in matched(made, tmp_path / "runs", committed)] == records_of(made[2])
    keep(tmp_path / "runs", of_gpu[:1])
    with pytest.raises(UserError, match=r"^the device differs, cuda in .*; cpu in .* choose one with"):
        matched(made, tmp_path / "runs", committed)
    keep(tmp_path / "runs", of_gpu)  # one's own count before the committed ones of another device
    runs = matched(made, tmp_path / "runs", committed)
    assert [run.record for run in runs] == records_of(of_gpu)
    for accelerator, expected in (("cpu", made[2]), ("gpu", of_gpu)):
        asked = [config.changed({"trainer.accelerator": accelerator}) for config in made[1]]
        found = match(made[0], asked, read(tmp_path / "runs", committed))
        assert [run.record for run in found] == records_of(expected)
        assert all(f"trainer.accelerator={accelerator}" in command(run) for run in found)


def test_two_results_of_one_run_are_refused(made: Made, tmp_path: Path) -> None:
    commit(tmp_path / "a" / "records", made[2][0])
    commit(tmp_path / "b" / "records", record(made[0][0], made[1][0], percent=12.5))
    name = made[2][0]["fingerprint"]
    with pytest.raises(
        UserError, match=f"a.records.{name}.json and .*{name}.json are of one run, .* different results"
    ):
        matched(made, tmp_path / "runs", f"{tmp_path}/*/records")


def test_records_of_other_images_are_not_those_asked_for(tmp_path: Path) -> None:
    """What STL-10 is pretrained on and which fold is labelled: both are the data's, and no data are looked at."""
    plain, other = (
        cells_of("table3", "paper", datasets=["stl10"], methods=["moco"], seeds=[0], overrides=overrides)
        for overrides in ([], ["dataset.split=train"])
    )
    fold = cells_of("table3", "paper", datasets=["stl10"], methods=["moco"], seeds=[0], overrides=["dataset.fold=3"])
    for number, (cells, configs) in enumerate((other, fold)):
        keep(tmp_path, [record(cells[0], configs[0], data_digest=f"digest {number}")])
    assert not any(run.record for run in matched((*plain, []), tmp_path))
    for cells, configs in (other, fold):
        assert all(run.record for run in matched((cells, configs, []), tmp_path))


def test_runs_that_no_record_tells_apart_are_refused(tmp_path: Path) -> None:
    cells = [Cell(row, "digits", 0, ()) for row in ("A", "B")]
    configs = [compose([f"init={folder}/encoder.safetensors"]) for folder in ("one", "other")]
    with pytest.raises(UserError, match="A on digits, seed 0 and B on digits, seed 0 differ in the folders"):
        match(cells, configs, read(tmp_path, None))
    match(cells, [compose(["init=one/a.safetensors"]), compose(["init=one/b.safetensors"])], read(tmp_path, None))


def test_what_was_set_for_all_runs_stands_under_them(tmp_path: Path) -> None:
    overrides = [
        "subset=500",
        "labels=100",
        "trainer.threads=2",
        "logger=wandb",
        "recipe=original",
        "trainer.clip=1.0",
        "scale.lr=1",
    ]
    cells, configs = cells_of("table3", "smoke", methods=["moco"], seeds=[0], overrides=overrides)
    keep(tmp_path, [record(cells[0], configs[0])])
    shown = provenance(matched((cells, configs, []), tmp_path))
    assert shown[1:] == ["Set for all runs: subset=500 labels=100 recipe=original trainer.clip=1.0 scale.lr=1."]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"numerics": 2}, "the version of numerics differs, 1 in"),
        ({"precision": "32-true"}, "the precision differs, bf16-mixed in"),
        ({"scale": "cpu"}, "the scale differs, smoke in"),
        ({"protocols": {**dict.fromkeys(PROTOCOLS, 1), "linear": 2}}, "the version of protocol linear differs, 1 in"),
        (
            {"baselines": {"random": 2, "pixels": 1}},
            "the version of the baseline random weights on digits differs, 1 in",
        ),
        ({"data_digest": "another"}, "the content of digits differs, digest of di in"),
        ({"batch_statistics": "per_device", "processes": 2}, "differs, global in .*; per_device of 2 in"),
    ],
)
def test_what_was_made_or_measured_otherwise_is_never_mixed(
    made: Made, tmp_path: Path, other: dict[str, Any], sentence: str
) -> None:
    odd = record(made[0][1], made[1][1], **other)
    keep(tmp_path, [made[2][0], odd])
    with pytest.raises(UserError, match=sentence) as caught:
        matched(made, tmp_path)
    assert made[2][0]["fingerprint"] in str(caught.value)
    assert odd["fingerprint"] in str(caught.value)


def test_raw_pixels_of_large_images_have_a_version_of_their_own_beside_those_of_small_ones(tmp_path: Path) -> None:
    cells, configs = cells_of("table3", "paper", methods=["moco"], seeds=[0], datasets=["cifar10", "stl10"])
    assert [versions(config.dataset.size)["pixels"] for config in configs] == [1, 2]
    made = [record(*pair, baselines=versions(pair[1].dataset.size)) for pair in zip(cells, configs, strict=True)]
    keep(tmp_path, made)
    assert [run.record for run in matched((cells, configs, made), tmp_path)] == records_of(made)


def test_two_precisions_of_one_cell_are_refused_until_one_is_chosen(made: Made, tmp_path: Path) -> None:
    cells, configs = cells_of("table3", methods=["moco"], seeds=[0, 1], overrides=["trainer.precision=32-true"])
    floats = [record(*pair, precision="32-true") for pair in zip(cells, configs, strict=True)]
    keep(tmp_path, [*made[2], *floats])
    with pytest.raises(UserError, match=r"choose one with trainer\.precision="):
        matched(made, tmp_path)
    assert [run.record for run in matched((cells, configs, []), tmp_path)] == records_of(floats)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"method": "moco", "fingerp', "Unterminated string"),
        ("[]", "it is not a JSON object"),
        ("{}", "it has no method"),
    ],
)
def test_damaged_and_half_written_records_are_named_and_skipped(
    made: Made, tmp_path: Path, text: str, reason: str
) -> None:
    keep(tmp_path, made[2][:1])
    damaged = tmp_path / "0123456789ab" / "record.json"
    damaged.parent.mkdir()
    damaged.write_text(text, encoding="utf-8")
    store = read(tmp_path, None)
    (shown,) = store.skipped
    assert shown.startswith(f"{damaged} is no finished record (")
    assert reason in shown
    assert damaged.read_text(encoding="utf-8") == text
    assert match(made[0], made[1], store)[0].record == Record.from_json(made[2][0])


def test_a_record_in_a_folder_of_another_run_and_one_with_impossible_figures_are_skipped(
    made: Made, tmp_path: Path
) -> None:
    foreign = tmp_path / "0123456789ab" / "record.json"
    foreign.parent.mkdir()
    foreign.write_text(json.dumps(made[2][0]), encoding="utf-8")
    keep(tmp_path, [record(made[0][1], made[1][1], percent=float("nan"))])
    borrowed = {**made[2][0], "config": made[1][1].as_dict()}
    keep(tmp_path, [borrowed])
    shown = "\n".join(read(tmp_path, None).skipped)
    assert "its configuration, data or precision is that of another run" in shown
    assert f"it belongs to run {made[2][0]['fingerprint']}" in shown
    assert "its knn1 is nan" in shown
    assert not any(run.record for run in matched(made, tmp_path))


def test_a_temporary_file_beside_committed_records_is_no_record(made: Made, tmp_path: Path) -> None:
    (tmp_path / ".0123456789ab.json").write_text("{", encoding="utf-8")
    assert read(tmp_path / "none", str(tmp_path)).skipped == []


def test_failed_and_missing_runs_are_two_things(made: Made, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / made[2][1]["fingerprint"])
    folder.fail("out of memory", "Traceback", made[1][1].as_dict())
    assert [run.failure for run in matched(made, tmp_path)] == [None, "out of memory"]
    keep(tmp_path, made[2])
    assert [run.failure for run in matched(made, tmp_path)] == [None, None]


def test_a_failure_that_does_not_name_its_run_is_named_and_skipped(made: Made, tmp_path: Path) -> None:
    (tmp_path / "0123456789ab").mkdir()
    (tmp_path / "0123456789ab" / "failed.json").write_text('{"error": "out of memory"}', encoding="utf-8")
    (shown,) = read(tmp_path, None).skipped
    assert shown.endswith("0123456789ab/failed.json does not name the run that failed (it has no config)")


def test_the_command_states_what_the_figures_depend_on(made: Made, tmp_path: Path) -> None:
    one = record(made[0][0], made[1][0])
    one["config"]["trainer"]["threads"] = 3
    one["environment"]["threads"] = 3
    keep(tmp_path, [one, made[2][1]])
    shown = [command(run) for run in matched(made, tmp_path)]
    assert shown[0] == (
        "python -m ssl_bench method=moco dataset=digits scale=smoke seed=0 trainer.precision=bf16-mixed "
        "trainer.threads=3 trainer.accelerator=cpu"
    )
    assert shown[1].endswith(f" trainer.threads={made[2][1]['environment']['threads']} trainer.accelerator=cpu")


def test_the_command_states_devices_threads_and_precision_of_the_record(tmp_path: Path) -> None:
    overrides = ["trainer=ddp", "trainer.threads=7", "trainer.devices=2"]
    cells, configs = cells_of("table3", "smoke", methods=["moco"], seeds=[0], overrides=overrides)
    one = record(cells[0], configs[0], processes=2)
    one["environment"]["threads"] = 1
    keep(tmp_path, [one])
    (run,) = matched((cells, configs, []), tmp_path)
    assert command(run) == (
        "python -m ssl_bench method=moco dataset=digits scale=smoke seed=0 trainer.precision=bf16-mixed "
        "trainer.threads=1 trainer.accelerator=cpu trainer=ddp trainer.devices=2 trainer.nodes=1 "
        "trainer.sync_batchnorm=true"
    )
    compose(shlex.split(command(run))[3:])  # the program takes it


def test_a_run_of_one_process_is_given_again_by_one_process(tmp_path: Path) -> None:
    cells, configs = cells_of(
        "table3", "smoke", methods=["moco"], seeds=[0], overrides=["trainer=ddp", "trainer.devices=2"]
    )
    keep(tmp_path, [record(cells[0], configs[0])])
    (run,) = matched((cells, configs, []), tmp_path)
    assert "ddp" not in command(run)
    assert "devices" not in command(run)


def test_all_code_that_trained_a_run_is_named(made: Made, tmp_path: Path) -> None:
    earlier = {"version": "0.1.0", "commit": "fedcba9876", "modified": False}
    keep(tmp_path, [{**made[2][0], "earlier_code": [earlier]}])
    assert "mixed code versions: 0123456, fedcba9." in provenance(matched(made, tmp_path))[0]


def test_code_that_differs_among_runs_or_has_changed_since_is_noted_under_them(made: Made, tmp_path: Path) -> None:
    """One's own runs are compared with the code here, too; committed records only with one another."""
    first, second = made[2][:2]
    now = code_digest(first["config"]["method"]["target"])

    def lines(own: list[str | None], *, committed: bool = False) -> list[str]:
        for folder in ("runs", "records"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        (tmp_path / "runs").mkdir()
        records = [
            {**one, "code": {**one["code"], "digest": digest}} for one, digest in zip((first, second), own, strict=True)
        ]
        if committed:
            for one in records:
                commit(tmp_path / "records", one)
        else:
            keep(tmp_path / "runs", records)
        found = provenance(matched(made, tmp_path / "runs", str(tmp_path / "records")))
        return [line for line in found if line.startswith("The code of")]

    mixed, since = (
        ["The code of moco is not the same in all of its runs."],
        ["The code of moco has changed since these runs: rerun=true trains them again."],
    )
    assert lines([now, now]) == lines([None, None]) == lines([now, None]) == []
    assert lines([now, "another"]) == mixed
    assert lines(["another", "another"]) == since
    assert lines(["another", "another"], committed=True) == []
    assert lines(["another", now], committed=True) == mixed
    keep(tmp_path / "runs", [{**one, "code": {**one["code"], "digest": "another"}} for one in (first, second)])
    copies = matched(made, tmp_path / "runs", str(tmp_path / "records"))
    assert not [line for line in provenance(copies) if line.startswith("The code of")]  # of the same two runs
    keep(tmp_path / "runs", [{**first, "earlier_code": [{"digest": "another"}, {"digest": "a third"}]}])
    assert mixed[0] in provenance(matched(made, tmp_path / "runs"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("environment", {}),
        ("protocols", {}),
        ("protocols", {"knn1": None}),
        ("images", {"test": "a"}),
        ("curves", {"a": "b"}),
        ("baselines", {}),
        ("baselines", {"random": None, "pixels": 1}),
        ("images", {}),
    ],
)
def test_records_that_are_nearly_right_are_named_and_skipped(
    made: Made, tmp_path: Path, field: str, value: dict[str, object]
) -> None:
    keep(tmp_path, [{**made[2][0], field: value}])
    store = read(tmp_path, None)
    assert len(store.skipped) == 1
    assert not store.entries
