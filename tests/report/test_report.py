"""python -m ssl_bench report as users run it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up import cells_of, keep, record

from forked import Forked
from ssl_bench.cli.report import main
from ssl_bench.config.sources import PACKAGE
from ssl_bench.errors import UserError
from ssl_bench.report import calibration, publish, records
from ssl_bench.report.records import Run
from ssl_bench.report.statistics import false_positives, smallest_step
from ssl_bench.results.record import Record

WORDS = ["scale=smoke", "methods=moco,clbo", "seeds=0,1,2"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs of two methods, which is where we are."""
    monkeypatch.chdir(tmp_path)
    cells, configs = cells_of("table3", methods=["moco", "clbo"], seeds=[0, 1, 2])
    keep(tmp_path / "runs", [record(*pair) for pair in zip(cells, configs, strict=True)])
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *overrides: str, status: int = 0) -> str:
    assert main(overrides) == status
    output, errors = capsys.readouterr()
    return output if status == 0 else errors


def test_a_table_is_saved_with_its_records_and_rendered_from_them_alone(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = printed(capsys, "table3", *WORDS, "out=experiments/table3")
    out = store / "experiments" / "table3"
    assert {file.name for file in out.iterdir()} == {
        *("records", "results.csv", "table.md", "table.tex", "table.png", "differences.png")
    }
    assert (out / "table.md").read_text(encoding="utf-8") == first
    copies = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in (out / "records").iterdir()}
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in (store / "runs").glob("*/record.json")]
    assert copies == {run["fingerprint"]: run for run in runs}
    (store / "runs").rename(store / "elsewhere")
    (out / "ranks.png").write_bytes(b"")  # of a table with more columns
    assert printed(capsys, "table3", *WORDS, "out=experiments/table3") == first
    assert not (out / "ranks.png").exists()
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert printed(capsys, "table3", *WORDS, "out=experiments/table3") == first
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_a_table_of_validation_images_shows_no_test_figure(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [Record.from_json(json.loads(file.read_text())) for file in (store / "runs").glob("*/record.json")]
    for one in found:
        one.results = {network: dict.fromkeys(scores, 1.23) for network, scores in one.results.items()}
        one.curves = {key: [[epoch, 77.0] for epoch, _ in curve] for key, curve in one.curves.items()}
        one.write(store / "runs" / one.fingerprint / "record.json")
    table = printed(capsys, "table3", *WORDS, "on=validation")
    assert "% of validation images" in table
    assert "77.0 ± 0.0" in table
    assert "1.2" not in table
    assert "\n| raw pixels" not in table
    assert "Random weights and raw pixels are scored on test images alone." in table
    on_test = printed(capsys, "table3", *WORDS)
    assert "1.2" in on_test
    assert "\n| raw pixels" in on_test
    assert "is printed only" in printed(capsys, "table3", *WORDS, "on=validation", "out=here", status=2)
    for one in found:
        one.curves = {key: curve for key, curve in one.curves.items() if key.startswith("test/")}
        one.write(store / "runs" / one.fingerprint / "record.json")
    sentence = "no run of table3 has knn1 on validation images: evaluation.curves must name it, and scale=paper holds"
    assert sentence in printed(capsys, "table3", *WORDS, "on=validation", status=2)


@pytest.mark.parametrize(
    ("name", "overrides", "where"),
    [
        ("fig6", ("methods=clbo", "seeds=0"), "% of validation images, linear"),
        ("simclr_head", ("seeds=0",), "validation"),
    ],
)
def test_curves_and_grids_of_validation_images_show_no_test_figure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    overrides: tuple[str, ...],
    where: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    cells, configs = cells_of(name, seeds=[0])
    made = [record(*pair) for pair in zip(cells, configs, strict=True)]
    for one in made:
        networks = [*one["results"], "projector"]
        one["results"] = {network: dict.fromkeys(one["protocols"], 1.23) for network in networks}
        one["curves"] = {
            key: [[epoch, 77.0 if key.startswith("validation/") else 1.23] for epoch, _ in curve]
            for key, curve in one["curves"].items()
        }
    keep(tmp_path / "runs", made)
    shown = printed(capsys, name, "scale=smoke", "records=null", "on=validation", *overrides)
    assert where in shown
    assert "77.0" in shown
    assert "1.2" not in shown
    assert ": projector" not in shown  # which has figures of test images alone
    assert "1.2" in printed(capsys, name, "scale=smoke", "records=null", *overrides)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("calibration", "calibration counts how often figures of test images differ by chance: leave"),
        ("fig8", "fig8 draws the features of test images: leave"),
        ("pic_saliency", "pic_saliency shows where encoders look on test images: leave"),
        ("table2", "table2 shows options alone: leave"),
        ("table1", "table1 has no accuracies: leave"),
    ],
)
def test_what_has_no_figures_of_validation_images_states_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in printed(capsys, name, "scale=smoke", "on=validation", status=2)


def test_an_empty_store_is_named_before_figures_of_validation_images_are_missed(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("fig4", "scale=smoke", "runs_dir=nowhere", "on=validation")
    assert "none of the 25 runs of fig4" in printed(capsys, *overrides, status=2)


def test_results_hold_every_figure_with_its_run_and_command(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "table3", *WORDS, "out=here", "data_dir=/somewhere/of/mine")
    with (store / "here" / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["dataset", "row", "seed", "network", "protocol", "percent", "fingerprint", "command"]
    for row in rows:
        run = json.loads((store / "runs" / row["fingerprint"] / "record.json").read_text(encoding="utf-8"))
        assert float(row["percent"]) == run["results"][row["network"]][row["protocol"]]
        assert f"seed={run['seed']}" in row["command"]
        assert "somewhere" not in row["command"]
    in_records = Counter(
        (run["dataset"], str(run["seed"]), network, protocol, str(percent))
        for name in {row["fingerprint"] for row in rows}
        for run in [json.loads((store / "runs" / name / "record.json").read_text(encoding="utf-8"))]
        for network, scores in run["results"].items()
        for protocol, percent in scores.items()
    )
    baselines = [score for score in in_records if score[2] in ("random", "pixels")]
    assert max(in_records[score] for score in baselines) > 1
    once = Counter({**in_records, **dict.fromkeys(baselines, 1)})
    found = Counter(tuple(row[key] for key in ("dataset", "seed", "network", "protocol", "percent")) for row in rows)
    assert found == once


def test_an_empty_store_states_how_to_fill_it(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = printed(capsys, "fig4", "scale=smoke", "runs_dir=nowhere", "out=here", "epochs=1", status=2)
    assert sentence == (
        "ssl_bench: none of the 25 runs of fig4 at scale=smoke is in nowhere or experiments/**/records; "
        "python -m ssl_bench sweep fig4 scale=smoke runs_dir=nowhere epochs=1 makes them.\n"
    )
    assert not (store / "here").exists()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["tabel3"], "there is no table or figure 'tabel3'; did you mean table3?"),
        (["scale=cpu"], "one table or figure at a time, not 0: name one of calibration, directpred_ema"),
        (["table3", "fig2"], "one table or figure at a time, not 2"),
        (["table3", "scale=big"], "scale=big is not allowed"),
        (["table3", "seeds=a"], "seeds=a is not allowed: seeds are whole numbers"),
        (["table3", "methods=byl"], "table3 has no row of method=byl; did you mean byol?"),
        (["table3", "scale=smoke", "epochs=none"], "epochs=none is not allowed"),
        (["table3", "scale=smoke", "evaluation.protocols=[knn1]"], "table3 shows linear, which evaluation.protocols"),
        (["fig3", "scale=smoke", "evaluation.curves=[knn1]"], "fig3 shows linear, which evaluation.curves leaves out"),
    ],
)
def test_a_wrong_argument_is_answered_in_one_sentence(
    overrides: list[str], sentence: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = printed(capsys, *overrides, status=2)
    assert answer.startswith(f"ssl_bench: {sentence}")
    assert answer.count("\n") == 1


def test_an_unwritable_folder_is_refused_in_one_sentence(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "file").write_text("", encoding="utf-8")
    answer = printed(capsys, "table3", *WORDS, "out=file/below", status=2)
    assert answer.startswith("ssl_bench: out: file/below/records/")
    assert answer.endswith("choose another folder.\n")
    assert answer.count("\n") == 1


def test_damaged_records_are_named_and_counted_and_the_table_is_made(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = store / "runs" / "0123456789ab" / "record.json"
    damaged.parent.mkdir()
    damaged.write_text("{", encoding="utf-8")
    assert main(["table3", *WORDS]) == 0
    errors = capsys.readouterr().err
    assert "0123456789ab/record.json is no finished record" in errors
    assert "skipped: 1 in all; nothing was changed." in errors


def test_figures_are_saved_with_their_points(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "fig6", "scale=smoke", "methods=moco,clbo", "out=fig6")
    assert {file.name for file in (store / "fig6").iterdir()} == {"records", "results.csv", "figure.png"}


def test_trials_are_compared_on_validation_images(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"SimCLR": "method=simclr", "wide": "method=simclr backbone.width=16"}
    sweep = {"rows": rows, "datasets": {"smoke": ["digits"]}, "seeds": [0, 1]}
    mine = {"sweep": sweep, "show": {"kind": "trials", "title": "Width"}}
    (store / "width.yaml").write_text(yaml.safe_dump(mine), encoding="utf-8")
    cells, configs = cells_of("./width.yaml")
    made = [
        record(cell, config, core_seconds=90.0, train_seconds=200.0, student_steps=7)
        for cell, config in zip(cells, configs, strict=True)
    ]
    for number, one in enumerate(made):
        one["curves"]["validation/knn1/student"][-1][1] = [50.0, 65.0, 70.0, 80.0][number]
    keep(store / "runs", made[:3])
    shown = printed(capsys, "./width.yaml", "scale=smoke", "out=width")
    first, second = shown.splitlines()[4:6]
    assert first.startswith("| digits, wide")
    assert " 65.0 (1/2) |" in first
    assert first.endswith(" 1.5 |")
    assert "60.0 ± 14.1 |" in second
    assert "% of validation images" in shown
    assert "Missing: 1 of 4 runs." in shown
    assert {file.name for file in (store / "width").iterdir()} == {"records", "results.csv", "table.md"}
    with (store / "width" / "results.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [(row["row"], row["seed"], row["validation_knn1"]) for row in found] == [
        ("SimCLR", "0", "50.0"),
        ("wide", "0", "65.0"),
        ("SimCLR", "1", "70.0"),
    ]
    for row, one in zip(found, made, strict=False):
        assert row["options"] == rows[row["row"]]
        assert float(row["test_linear"]) == one["results"]["student"]["linear"]
        assert (row["core_seconds"], row["student_steps"]) == ("90.0", "7")


def test_the_rate_of_errors_stands_under_every_table(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "A/A calibration: not measured" in printed(capsys, "table3", *WORDS)
    cells, configs = cells_of("calibration")
    keep(store / "runs", [record(*pair) for pair in zip(cells, configs, strict=True)])
    shown = printed(capsys, "calibration", "scale=smoke", "out=experiments/calibration")
    assert "| 2 rows of n = 3 |" in shown
    with (store / "experiments" / "calibration" / "results.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 2 * 48
    note = printed(capsys, "table3", *WORDS)
    (line,) = [line for line in note.splitlines() if "A/A calibration" in line]
    with (store / "experiments" / "calibration" / "results.csv").open(encoding="utf-8") as file:
        values = [float(row["percent"]) for row in csv.DictReader(file) if row["protocol"] == "knn1"]
    step = smallest_step(values)
    for n in (3, 5):
        pair, _ = false_positives(values, n, rows=2, step=step)
        _, column = false_positives(values, n, rows=9, step=step)
        assert f"n = {n}: knn1 {pair:.1%} and {column:.1%}" in line
    assert pair != column
    assert "SimCLR on digits at scale smoke, 48 runs" in line


def test_of_one_run_there_is_one_record_wherever_it_lies(tmp_path: Path) -> None:
    cells, configs = cells_of("table3", methods=["moco"], seeds=[0])

    def kept(percent: float, seconds: float) -> dict[str, Any]:
        return {**record(cells[0], configs[0], percent=percent), "train_seconds": seconds}

    name = kept(90.0, 1.0)["fingerprint"]
    old, own = tmp_path / "trials" / "one" / "records" / f"{name}.json", tmp_path / "runs" / name / "record.json"
    for path in (old, own):
        path.parent.mkdir(parents=True)
    later = {**kept(90.0, 3.0), "baselines": {"random": 9, "pixels": 9}}  # the same percents by another version
    for found, expected in (
        (kept(90.0, 2.0), kept(90.0, 1.0)),
        (kept(91.0, 3.0), kept(91.0, 3.0)),
        (later, later),
        (
            {**kept(90.0, 3.0), "warnings": ["epoch 1: Collapsed"]},
            {**kept(90.0, 3.0), "warnings": ["epoch 1: Collapsed"]},
        ),
    ):
        old.write_text(json.dumps(kept(90.0, 1.0)), encoding="utf-8")
        own.write_text(json.dumps(found), encoding="utf-8")
        run = Run(cells[0], configs[0], records.StoredRecord(own, Record.from_json(found)), None)
        store = records.read(tmp_path / "runs", f"{tmp_path}/**/records")
        replaced = publish._save_records(tmp_path / "fig4", [run], store)
        assert replaced == ([old] if expected != kept(90.0, 1.0) else [])
        assert json.loads(old.read_text(encoding="utf-8")) == expected
        assert not (tmp_path / "fig4").exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"results": {}}'])
def test_a_damaged_copy_of_a_record_is_named_and_replaced_and_a_whole_one_left_alone(
    store: Path, capsys: pytest.CaptureFixture[str], damage: bytes
) -> None:
    whole = printed(capsys, "table3", *WORDS, "out=experiments/table3")
    damaged, *others = sorted((store / "experiments" / "table3" / "records").iterdir())
    before, untouched = damaged.read_bytes(), [path.stat() for path in others]
    damaged.write_bytes(damage)
    assert main(["table3", *WORDS, "out=experiments/table3"]) == 0
    shown, said = capsys.readouterr()
    assert shown == whole
    assert f"skipped: {damaged.relative_to(store)} is no finished record (" in said
    assert damaged.read_bytes() == before
    assert len(others) == 8
    for path, stat in zip(others, untouched, strict=True):
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


def test_the_folder_of_runs_is_the_one_of_the_runs() -> None:
    report, run = (yaml.safe_load(PACKAGE.joinpath(name).read_text("utf-8")) for name in ("report.yaml", "config.yaml"))
    assert report["runs_dir"] == run["runs_dir"]


def test_rendering_imports_no_torch_and_no_lightning(store: Path) -> None:
    code = (
        "import sys; from ssl_bench.cli.report import main; "
        "assert main(['table3', 'scale=smoke', 'methods=moco', 'seeds=0', 'out=here']) == 0; "
        "print([name for name in ('torch', 'pytorch_lightning', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_the_command_beside_a_figure_gives_it_again(tmp_path: Path) -> None:
    def run(*overrides: str) -> None:
        process = Forked(tmp_path, *overrides)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output

    small = ["epochs=1", "trainer.threads=1"]
    for seed in (0, 1):
        run("method=moco", "dataset=digits", "scale=smoke", f"seed={seed}", *small)
    run("report", "table3", "scale=smoke", "methods=moco", "seeds=0,1", "epochs=1", "out=out")
    with (tmp_path / "out" / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "1"]
    (command,) = {row["command"] for row in rows}
    python, *overrides = command.split()
    assert [python, *overrides[:2]] == ["python", "-m", "ssl_bench"]
    run(*overrides[2:], "runs_dir=again")
    (name,) = {row["fingerprint"] for row in rows}
    again = json.loads((tmp_path / "again" / name / "record.json").read_text(encoding="utf-8"))
    assert [again["results"][row["network"]][row["protocol"]] for row in rows] == [
        float(row["percent"]) for row in rows
    ]
    assert len(rows) == 4 * 4  # student, teacher, random weights and raw pixels under four protocols


def test_only_what_the_disk_refuses_is_blamed_on_the_folder(tmp_path: Path) -> None:
    def unmarked(path: Path) -> None:
        raise UserError("mark is q.")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"^mark is q\.$"):
        publish.save(tmp_path / "figure.png", unmarked)
    with pytest.raises(UserError, match=r"^out: .*figure\.png cannot be written \(No space left on device\)"):
        publish.save(tmp_path / "figure.png", full)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"row,dataset,seed,protocol\nSimCLR,digits,0,knn1\n",
        b"row,dataset,seed,protocol,percent,command\nSimCLR,digits,0,knn1,high,scale=smoke\n",
        b"row,dataset,seed,protocol,percent,command\nSimCLR,digits,0,knn1\n",
        b"row,dataset,seed,protocol,percent,command\nSimCLR,digits,0,knn1,90.0,scale=smoke\n",
        b"\x89PNG\r\n\x1a\n\x00\xff\xfe",
        b"a" * 200_000,
    ],
    ids=["empty", "no column of percents", "text", "a line that ends early", "one run", "binary", "one long field"],
)
def test_a_file_of_accuracies_that_holds_none_is_named_under_the_table(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "results.csv"
    file.write_bytes(content)
    note = calibration.note(file)
    assert note.startswith(f"A/A calibration: {file} cannot be read (")
    assert "\n" not in note
