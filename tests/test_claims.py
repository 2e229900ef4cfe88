"""The table of all claims of the papers, which is made of what stands elsewhere."""

from __future__ import annotations

import csv
import shlex

import pytest

import claims
from ssl_bench.config import experiments
from ssl_bench.config.compose import compose
from ssl_bench.page import former


def test_the_table_of_claims_is_that_of_definitions_and_verdicts() -> None:
    assert claims.FILE.read_text(encoding="utf-8") == claims.table()  # python tests/claims.py writes it


def test_every_verdict_begins_with_whether_the_claim_holds() -> None:
    verdicts = {claim.name: claims.verdict(claim.name) for claim in claims.claims()}
    assert not {
        name: text
        for name, text in verdicts.items()
        if text != claims.NOT_RUN and text.partition(": ")[0] not in claims.HOLDS
    }


def test_it_has_every_table_and_figure_of_the_papers() -> None:
    found = [claim.name for claim in claims.claims()]
    assert sorted(found) == sorted({*experiments.names(), "directpred_dynamics"} - {"calibration"})


def test_every_run_of_the_results_beside_a_verdict_has_its_record() -> None:
    folders = claims.ROOT / "experiments"
    records = {file.stem for file in folders.glob("**/records/*.json")}
    missing = {
        name: gone
        for name in experiments.names()
        if name != "calibration"  # of hundreds of short runs
        if (gone := {fingerprint for _, fingerprint in former.named(folders / name)} - records)
    }
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in experiments.names() if name != "calibration"])
def test_commands_beside_a_verdict_compose(name: str) -> None:
    file = claims.ROOT / "experiments" / name / "results.csv"
    of_kind: dict[tuple[str, ...], str] = {}  # of all seeds one
    with file.open(newline="", encoding="utf-8") as lines:
        for line in csv.DictReader(lines):
            kind = tuple(line.get(key) or "" for key in ("dataset", "row", "column", "accounting"))
            of_kind.setdefault(kind, line["command"])
    assert of_kind
    for command in of_kind.values():
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "ssl_bench"]
        compose(words[3:])


def test_a_claim_is_a_sentence_behind_its_source() -> None:
    text = "Figure 8 and table 3 of Chen et al. 2020 (SimCLR): accuracy. Claims: a is 0.5; b is c. More."
    expected = ("x", "Chen et al.", "Figure 8 and table 3 of Chen et al. 2020 (SimCLR)", "a is 0.5; b is c")
    assert claims.claim("x", text) == expected
    readme = "Claims of Tian et al. 2021 (DirectPred), of a linear network: more is better."
    expected = ("x", "Tian et al.", "Tian et al. 2021 (DirectPred)", "more is better")
    assert claims.claim("x", readme) == expected
    assert claims.claim("x", "How often do tables err? Claim: rarely.") is None


def test_a_folder_without_a_verdict_is_not_yet_run() -> None:
    assert claims.verdict("no such folder") == claims.NOT_RUN
    assert claims.verdict("gpu") == claims.NOT_RUN  # "open"
    assert "holds" in claims.verdict("calibration")
