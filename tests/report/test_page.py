"""The page: what stands on it, made of records that no run left."""

from __future__ import annotations

import functools
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up import cells_of, keep, record, records_of

from ssl_bench.cli.page import main
from ssl_bench.config import composition, defaults
from ssl_bench.config.compose import compose
from ssl_bench.config.experiments import Cell, find, is_sweep
from ssl_bench.errors import UserError
from ssl_bench.page import contents, findings, runs, serve
from ssl_bench.page.write import OURS
from ssl_bench.report.contrast import PAGES
from ssl_bench.report.records import StoredRecord

ROOT = Path(__file__).parents[2]
EVIL = "<img src=x onerror=alert(1)>"
METHODS = {EVIL: "simclr", "CLBO": "clbo"}  # of each row
README = f"""# Rows called {EVIL}

    OPTIONS="seeds=0,1,2"
    python -m ssl_bench sweep {{file}} scale=smoke $OPTIONS
    python -m ssl_bench report {{file}} scale=smoke $OPTIONS out=there

Claim of nobody: {EVIL} is `best`, as [beside](../other/README.md) and in [a paper](https://example.org/paper).

Cost: nothing. ![of another host](https://example.org/picture.png)

Verdict: **does not hold.** {EVIL} is not.
"""


def make(folder: Path) -> Path:
    """A folder of experiments with one of two rows and three seeds, whose runs are in ``runs``."""
    own = folder / "experiments" / "evil"
    own.mkdir(parents=True)
    file = own / "rows.yaml"
    rows = {row: f"method={method}" for row, method in METHODS.items()}
    described = {
        "sweep": {"rows": rows, "datasets": {"smoke": ["digits"]}, "seeds": [0, 1, 2]},
        "show": {"kind": "table", "title": EVIL, "protocols": ["knn1", "linear"]},
    }
    file.write_text(yaml.safe_dump(described), encoding="utf-8")
    (own / "README.md").write_text(README.format(file=file), encoding="utf-8")
    cells, configs = cells_of(str(file))
    costs = {"student_steps": 20, "train_seconds": 60.0, "warnings": [EVIL]}
    keep(folder / "runs", [record(*pair, **costs) for pair in zip(cells, configs, strict=True)])
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("page"))


def page(folder: Path, out: Path, *overrides: str, status: int = 0) -> None:
    places = [f"{key}={folder / key}" for key in ("runs_dir", "experiments")]
    places[0] = f"runs_dir={folder / 'runs'}"
    assert main([*places, "records=null", f"out={out}", *overrides]) == status


def data(out: Path, name: str) -> Any:
    text = (out / "data" / f"{name}.js").read_text(encoding="utf-8")
    found = re.fullmatch(rf'take\("{name}",(.*)\);\n', text, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.mark.parametrize("accumulate", [1, 2, 3, 5])
def test_the_images_of_a_run_are_those_of_its_batches_though_an_epochs_last_step_takes_fewer(accumulate: int) -> None:
    config = compose(["method=simclr", "scale=smoke", "epochs=4", "batch_size=16", f"trainer.accumulate={accumulate}"])
    steps = 4 * -(-5 // accumulate)
    images = {"test": 400, "pretraining": 87}
    cell = Cell(row="one", dataset="digits", seed=0, overrides=())
    (kept,) = records_of([record(cell, config, student_steps=steps, images=images)])
    assert runs.images_seen(kept) == 4 * 5 * 16


def named(folder: Path) -> str:
    """The experiment of the folder, as an argument: without a name, runs_dir= shows runs alone."""
    return str(folder / "experiments" / "evil")


def test_every_readme_of_the_repository_states_claim_cost_and_verdict_where_it_compares_runs() -> None:
    for readme in (ROOT / "experiments").glob("*/README.md"):
        found = findings.read(readme.parent)
        assert found.title, readme
        name = found.report[0] if found.report else ""
        if is_sweep(name) and find(name).show["kind"] in ("table", "curves"):
            assert {"Claim", "Cost", "Verdict"} <= found.paragraphs.keys(), readme
            assert found.verdict, readme


def test_a_finding_has_the_texts_of_its_readme_as_text_and_the_arguments_of_its_report(made: Path) -> None:
    found = findings.read(made / "experiments" / "evil")
    assert found.verdict == "does not hold"
    assert found.report == [str(made / "experiments" / "evil" / "rows.yaml"), "scale=smoke", "seeds=0,1,2"]
    claim = found.paragraphs["Claim"]
    assert "<h1>" not in found.whole  # which stands above it
    assert "<img" not in found.whole
    assert "&lt;img src=x onerror=alert(1)&gt; is <code>best</code>, as beside and in" in claim
    assert '<a href="https://example.org/paper">a paper</a>' in claim


def test_tables_curves_runs_and_commands_are_those_of_the_report(made: Path, tmp_path: Path) -> None:
    page(made, tmp_path, named(made))
    index, shown = data(tmp_path, "index"), data(tmp_path, "e0")
    assert len(index["runs"]) == 6
    assert shown["columns"] == ["digits, knn1", "digits, linear"]
    assert list(shown["cells"]) == [EVIL, "CLBO", "random weights", "raw pixels"]
    one = shown["runs"][0]
    record_file = json.loads((made / "runs" / one["run"] / "record.json").read_text(encoding="utf-8"))
    percent = record_file["results"]["student"]["knn1"]
    assert shown["seeds"]["digits, knn1"][EVIL]["0"] == percent
    place = index["fields"].index("knn1")
    assert next(run for run in index["runs"] if run[0] == one["run"])[place] == percent
    assert one["command"].startswith("python -m ssl_bench method=simclr dataset=digits scale=smoke seed=0 ")
    assert data(tmp_path, f"r{one['run'][0]}")[one["run"]]["command"] == one["command"]
    (first, _) = shown["differences"]
    assert first["rows"] == [EVIL, "CLBO"]
    means = [sum(shown["seeds"]["digits, knn1"][row].values()) / 3 for row in (EVIL, "CLBO")]
    assert first["mean"] == pytest.approx(means[0] - means[1])
    assert {line["network"] for line in shown["curves"]} == {"student", "teacher", "deployed"}
    assert (index["experiments"][0]["kind"], index["experiments"][0]["methods"]) == ("table", 2)


def test_files_of_conf_are_composed_once_for_all_records(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose_by_hydra = composition._hydra
    calls = []
    monkeypatch.setattr(composition, "_PARTS", {})
    monkeypatch.setattr(composition, "_hydra", lambda groups: calls.append(groups) or compose_by_hydra(groups))
    monkeypatch.setattr(runs, "_defaults", functools.cache(runs._defaults.__wrapped__))
    defaults.chosen_files.cache_clear()
    page(made, tmp_path)
    assert len(calls) == 1


def test_nothing_that_a_file_names_is_markup(made: Path, tmp_path: Path) -> None:
    page(made, tmp_path, named(made))
    assert "<img" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    ours = [path for path in tmp_path.glob("*.js") if path.name not in ("d3.min.js", "plot.umd.min.js")]
    assert len(ours) == 6
    script = "".join(path.read_text(encoding="utf-8") for path in ours)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_runs_alone_are_compared_by_what_they_set(made: Path, tmp_path: Path, capsys: Any) -> None:
    page(made, tmp_path)
    (shown,) = [data(tmp_path, "e0")]
    assert [row["label"] for row in shown["rows"]] == ["CLBO", "SimCLR"]
    assert shown["name"] == "scale=smoke, bf16-mixed on cpu, numerics 1"
    assert all("method=" in run["command"] for run in shown["runs"])
    assert "shows 0 finding(s) and 6 run(s)" in capsys.readouterr().out


def test_a_record_that_is_none_is_counted_and_named_and_the_rest_shown(tmp_path: Path, capsys: Any) -> None:
    folder = make(tmp_path / "made")
    for name, content in {"half": '{"method": "simcl', "foreign": '{"a": 1}', EVIL.replace("/", ""): "[]"}.items():
        (folder / "runs" / name).mkdir()
        (folder / "runs" / name / "record.json").write_text(content, encoding="utf-8")
    page(folder, tmp_path / "site")
    assert "skipped: 3 in all" in capsys.readouterr().err
    index = data(tmp_path / "site", "index")
    assert len(index["skipped"]) == 3
    assert len(index["runs"]) == 6


def test_runs_that_cannot_stand_in_one_table_leave_the_sentence_in_its_place(tmp_path: Path) -> None:
    folder = make(tmp_path / "made")
    path = next((folder / "runs").glob("*/record.json"))
    other = json.loads(path.read_text(encoding="utf-8"))
    other["protocols"]["knn1"] = 2
    path.write_text(json.dumps(other), encoding="utf-8")
    page(folder, tmp_path / "site", named(folder))
    assert "the version of protocol knn1 differs" in data(tmp_path / "site", "e0")["problem"]


def test_a_page_is_written_again_only_where_it_changes(made: Path, tmp_path: Path) -> None:
    page(made, tmp_path, named(made))
    (tmp_path / "data" / "e7.js").write_text("of an earlier page", encoding="utf-8")
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.rglob("*.*")}
    page(made, tmp_path, named(made))
    del before[tmp_path / "data" / "e7.js"]
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["tabel3"], "there is no table or figure 'tabel3'; did you mean table3?"),
        (["scale=smoke"], "scale=smoke chooses among the runs of an experiment: name one"),
        (["epochs=3"], "epochs=3 chooses among the runs of an experiment: name one"),
        (["table3", "scale=big"], "scale=big is not allowed"),
        (["runs_dir=nowhere"], "there is nothing to show: no finished run in nowhere; python -m"),
        (["out=file"], "out=file is a file: choose a folder"),
        (["out=other"], "out=other has another index.html, which would be lost"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence(
    overrides: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("", encoding="utf-8")
    Path("other").mkdir()
    Path("other/index.html").write_text("mine", encoding="utf-8")
    assert main(overrides) == 2
    answer = capsys.readouterr().err
    assert answer.startswith(f"ssl_bench: {sentence}")
    assert answer.count("\n") == 1
    assert Path("other/index.html").read_text(encoding="utf-8") == "mine"


def test_a_folder_that_cannot_be_written_is_refused(made: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for out in (tmp_path / "file" / "site", Path("/proc/site")):
        page(made, out, status=2)
        answer = capsys.readouterr().err
        assert f"out={out} cannot be written" in answer
        assert answer.count("\n") == 1


def test_the_backgrounds_are_those_of_the_style_sheet() -> None:
    style = (ROOT / "src" / "ssl_bench" / "page" / "static" / "page.css").read_text(encoding="utf-8")
    assert re.findall(r"--page: (#\w+);", style) == list(PAGES.values())
    assert OURS


def test_a_watched_page_grows_with_its_runs_and_is_served_to_this_machine_alone(tmp_path: Path, capsys: Any) -> None:
    folder = make(tmp_path / "made")
    (late, *_) = (folder / "runs").iterdir()
    late.rename(tmp_path / "late")
    asked = contents.request([f"runs_dir={folder / 'runs'}", f"out={tmp_path / 'site'}"])
    seen = []

    def wait(seconds: float) -> None:
        address = capsys.readouterr().out.split()[0] if not seen else seen[0][0]
        with urllib.request.urlopen(f"{address}/version") as answer:
            version = answer.read()
        seen.append((address, version, len(data(tmp_path / "site", "index")["runs"])))
        if len(seen) == 3:
            raise KeyboardInterrupt
        if len(seen) == 1:
            (tmp_path / "late").rename(late)
            elsewhere = urllib.request.Request(address, headers={"Host": "example.org:80"})
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(elsewhere)
            taken = contents.request([f"out={tmp_path / 'other'}", f"port={address.rpartition(':')[2]}"])
            with pytest.raises(UserError, match=r"cannot be served at .*: choose another, or port=0"):
                serve.serve(taken, contents.Contents(), {})

    serve.serve(asked, contents.contents(asked), serve.stamp_of(asked), wait=wait)
    assert seen[0][0].startswith("http://127.0.0.1:")
    assert [runs for *_, runs in seen] == [5, 6, 6]
    assert seen[0][1] != seen[1][1] == seen[2][1]


def test_runs_of_which_no_images_can_be_shown_are_named(made: Path, tmp_path: Path) -> None:
    page(made, tmp_path, named(made), "images=10")
    shown = data(tmp_path, "index")["images"]
    assert (shown["runs"], shown["datasets"]) == ({}, [])
    assert all("No such file" in sentence for sentence in shown["left_out"])
    assert len(shown["left_out"]) == 2  # one of each row


@pytest.mark.parametrize("name", ["directpred_dynamics", str(ROOT / "experiments" / "directpred_dynamics")])
def test_a_finding_without_runs_is_shown_by_its_name(tmp_path: Path, name: str) -> None:
    assert main([f"experiments={ROOT / 'experiments'}", f"runs_dir={tmp_path}", f"out={tmp_path / 'site'}", name]) == 0
    assert "DirectPred: the decoupled dynamics" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not data(tmp_path / "site", "index")["experiments"]


def test_a_configuration_that_is_older_than_an_option_has_its_default() -> None:
    tree = compose(["method=simclr", "optimizer.lr=0.3"]).as_dict()
    del tree["evaluation"]["finetune"], tree["optimizer"]["trust"]
    assert runs.typed_config(tree) == compose(["method=simclr", "optimizer.lr=0.3"])


def test_the_command_of_a_run_has_arguments_that_no_file_of_conf_knows() -> None:
    config = compose(["method=simclr", "backbone=vit", "backbone.arguments={mlp_ratio: 2.0}"])
    (made,) = records_of([record(Cell("SimCLR", "digits", 0, ()), config)])
    again = runs.overrides(made)
    assert again is not None
    assert "backbone.arguments.mlp_ratio=2.0" in again
    for committed in (False, True):
        found = runs.alone(StoredRecord(Path("record.json"), made, committed))
        assert found is not None
        assert found.committed is committed  # only one's own code is compared with that of today
    assert compose(again) == config


def test_runs_that_no_experiment_describes_have_their_command_too(made: Path, tmp_path: Path) -> None:
    page(made, tmp_path, f"{named(made)}/rows.yaml", "scale=smoke", "seeds=0")
    assert len(data(tmp_path, "e0")["runs"]) == 2
    names = [line[0] for line in data(tmp_path, "index")["runs"]]
    whole = [data(tmp_path, f"r{name[0]}")[name] for name in names]
    assert len(whole) == 6
    for one in whole:
        assert (
            f"method={one['config']['method.name']} dataset=digits scale=smoke seed={one['config']['seed']} "
            in one["command"]
        )
