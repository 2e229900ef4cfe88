"""The tables of experiments/ are what their commands print from the committed records."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ssl_bench.cli.report import main

ROOT = Path(__file__).parents[2]
OTHERWISE = {  # made of what is not committed, or held by a test of their own
    "calibration": "accuracies in results.csv",
    "directpred_dynamics": "test_dynamics",
    "fig8": "encoders",
    "learns": "test_expected",
    "learns/cifar10": "test_expected",
    "pic_saliency": "encoders",
    "table1": "test_datasets",
    "table2": "test_hyperparameters",
}


def commands() -> dict[str, list[str]]:
    """What READMEs state that a report is made by, without ``out``, by the folder that it is in."""
    found = {}
    for readme in sorted((ROOT / "experiments").glob("*/README.md")):
        text = readme.read_text(encoding="utf-8")
        for name, values in re.findall(r"(\w+)=\((.*)\)$", text, re.MULTILINE):
            text = text.replace(f'"${{{name}[@]}}"', values)
        for name, words, body in re.findall(r"for (\w+) in (.*); do\n(.*?) done", text, re.DOTALL):
            text += "".join(body.replace(f"${name}", word) for word in words.split())
        made = re.findall(r"^ +python -m ssl_bench report (\S.*) out=experiments/(\S+)$", text, re.MULTILINE)
        found |= {folder: shlex.split(arguments) for arguments, folder in made if "$" not in folder}
    return found


FOLDERS = (path.parent.relative_to(ROOT / "experiments") for path in (ROOT / "experiments").rglob("table.md"))
TABLES = {folder.as_posix() for folder in FOLDERS} - OTHERWISE.keys()


def test_every_committed_table_states_the_command_that_prints_it() -> None:
    assert len(TABLES) > 20
    assert commands().keys() >= TABLES


@pytest.mark.slow
@pytest.mark.parametrize("folder", sorted(TABLES))
def test_a_committed_table_is_that_of_the_committed_records(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main([*commands()[folder], f"runs_dir={tmp_path}"]) == 0
    assert capsys.readouterr().out == Path("experiments", folder, "table.md").read_text(encoding="utf-8")
