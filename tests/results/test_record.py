"""The record: what earlier versions wrote is read, written again to the same, and refused in a sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ssl_bench.results import record as records
from ssl_bench.results.record import Record, code_version, without_places

ROOT = Path(__file__).parents[2]
COMMITTED = [*sorted(ROOT.glob("tests/records/*.json")), *sorted(ROOT.glob("experiments/**/records/*.json"))]


def test_every_committed_record_is_read_under_its_name_and_written_as_it_was(tmp_path: Path) -> None:
    assert len(COMMITTED) > 100
    for path in COMMITTED:
        record = Record.read(path, path.stem)
        found = json.loads(path.read_text(encoding="utf-8"))
        record.write(tmp_path / "record.json")
        written = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
        assert {key: written[key] for key in found} == found
        assert [key for key in written if key in found] == list(found)


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    record = Record.read(COMMITTED[0], COMMITTED[0].stem)
    network = record.evaluated
    record.curves = {f"test/knn1/{network}": [[1, nan], [2, inf], [3, 1.0]]}
    record.notes = {network: {"knn1": {"std": -inf, "each": (nan, 2.5, [inf]), "k": 1}}}
    record.results[network]["knn1"] = nan
    record.write(tmp_path / "record.json")

    def refused(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    found = Record.from_json(json.loads((tmp_path / "record.json").read_text("utf-8"), parse_constant=refused))
    assert found.curves == {f"test/knn1/{network}": [[1, None], [2, None], [3, 1.0]]}
    assert found.notes == {network: {"knn1": {"std": None, "each": [None, 2.5, [None]], "k": 1}}}
    assert found.results[network]["knn1"] is None
    assert {**vars(found), "curves": 0, "notes": 0, "results": 0} == {
        **vars(Record.read(COMMITTED[0], COMMITTED[0].stem)), "curves": 0, "notes": 0, "results": 0
    }  # fmt: skip


def test_what_earlier_versions_did_not_write_has_the_meaning_that_it_had_then() -> None:
    record = Record.read(COMMITTED[0], COMMITTED[0].stem)
    found = json.loads(COMMITTED[0].read_text(encoding="utf-8"))
    assert not {"device", "baselines", "earlier_code"} & found.keys()
    assert (record.device, record.baselines, record.earlier_code) == ("cpu", {"random": 1, "pixels": 1}, [])
    assert record.code_versions == [found["code"]]
    more = Record.from_json({**found, "earlier_code": [{"digest": "a"}], "of a later version": 1})
    assert more.code_versions == [found["code"], {"digest": "a"}]


def test_the_name_that_a_record_claims_follows_from_the_rest() -> None:
    record = Record.read(COMMITTED[0], COMMITTED[0].stem)
    assert record.run_fingerprint == record.fingerprint
    for other in ({"device": "cuda"}, {"numerics": 10**6}, {"batch_statistics": "per_device", "processes": 2}):
        assert replace(record, **other).run_fingerprint != record.fingerprint


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"method": None}, "it has no method"),
        ({"results": []}, "its results is no dict"),
        ({"seed": "0"}, "its seed is no int"),
        ({"warnings": "none"}, "its warnings is no list"),
        ({"train_seconds": float("inf")}, "its train_seconds is no number"),
        ({"baselines": {"random": None, "pixels": 1}}, "its versions of the baselines are no whole numbers"),
        ({"baselines": {}}, "it has no random"),
        ({"evaluated": "encoder"}, "it has no results of encoder, the network evaluated"),
    ],
)
def test_a_field_that_does_not_fit_is_named(tmp_path: Path, wrong: dict[str, Any], sentence: str) -> None:
    found = json.loads(COMMITTED[0].read_text(encoding="utf-8"))
    (tmp_path / "record.json").write_text(json.dumps({**found, **wrong}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Record.read(tmp_path / "record.json", COMMITTED[0].stem)


def test_a_record_lacks_where_things_lie_and_no_option_that_is_called_alike() -> None:
    config = json.loads(COMMITTED[0].read_text(encoding="utf-8"))["config"]
    placed = {**config, "runs_dir": "/a", "data_dir": "/b", "method": {**config["method"], "root": 2, "data_dir": "c"}}
    placed["dataset"] = {**config["dataset"], "root": "/d", "test_root": "/e", "stored": 96}
    found = without_places(placed)
    assert found["method"] == placed["method"]
    assert found["dataset"] == {**config["dataset"], "stored": 96}
    assert not {"runs_dir", "data_dir"} & found.keys()


def test_where_git_does_not_answer_it_is_not_known_whether_files_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rev-parse": "0" * 40, "ls-files": "__init__.py", "status": None}
    monkeypatch.setattr(records, "_git", lambda folder, command, *more: answers[command])
    assert code_version.__wrapped__()["modified"] is None
    answers["status"] = ""
    assert code_version.__wrapped__()["modified"] is False
