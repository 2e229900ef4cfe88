"""The W&B dashboard shows what runs log, and is updated and not added to."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from forked import Forked
from ssl_bench.cli.report import main
from ssl_bench.config import experiments
from ssl_bench.config.sources import PACKAGE
from ssl_bench.report import dashboard
from ssl_bench.report.palette import row_colours
from test_loggers import (
    Answer,
    Contents,
    Server,
    home,  # noqa: F401
    metrics,
)
from test_resume import TINY


class Views(Server):
    """Answers what saving views asks for, and keeps the views by name as a W&B project does."""

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = ViewsAnswer
        self.views: dict[str, dict[str, Any]] = {}
        self.inserted: list[bool] = []
        self.entity: str | None = "someone"
        self.project = "ssl_bench"
        self.refuses = False


class ViewsAnswer(Answer):
    server: Views

    def do_POST(self) -> None:  # noqa: N802 (the name is the server's)
        query = json.loads(self.body())
        self.reply(self.answer(query["query"], query.get("variables") or {}))

    def answer(self, query: str, words: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            if self.server.refuses:
                return {"errors": [{"message": "permission denied"}]}
            assert (words["entityName"], words["projectName"]) == ("someone", self.server.project)
            known = {view["id"]: name for name, view in self.server.views.items()}
            name = known.get(words.get("id"), words["name"])
            self.server.inserted.append(words.get("id") not in known)
            if self.server.inserted[-1]:  # whatever W&B does with a second view of one name: it must not come to that
                name = name if name not in self.server.views else f"{name} again"
            view = {"id": words.get("id") or f"id of {name}", "name": name}
            self.server.views[name] = {**words, **view}
            return {"data": {"upsertView": {"view": view, "inserted": self.server.inserted[-1]}}}
        if "allViews" in query:
            if words["project"] != self.server.project:
                return {"data": {"project": None}}
            found = [
                {"node": {"id": view["id"]}} for view in self.server.views.values() if view["name"] == words["view"]
            ]
            return {"data": {"project": {"allViews": {"edges": found}}}}
        assert "viewer" in query
        return {"data": {"viewer": {"id": "1", "entity": self.server.entity, "username": "someone"}}}


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Views]:  # noqa: F811
    server = Views()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    yield server
    wandb.teardown()
    server.shutdown()
    server.server_close()
    thread.join()


def dry(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["wandb", "dry=true", *words]) == 0
    printed: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return printed


def panels(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for section in spec["section"]["panelBankConfig"]["sections"] for panel in section["panels"]]


def metrics_of(spec: dict[str, Any]) -> set[str]:
    """The name of everything logged that a view mentions."""
    configs = [panel["config"] for panel in panels(spec)]
    columns = spec["section"]["runSets"][0]["runFeed"]["columnOrder"]
    return {
        spec["section"]["settings"]["xAxis"],
        *(config["xAxis"] for config in configs if "xAxis" in config),
        *(name for config in configs for name in (*config.get("metrics", ()), *config.get("mediaKeys", ()))),
        *(name.removeprefix("summary:") for name in columns if name.startswith("summary:")),
    }


def test_a_view_shows_curves_collapse_loss_and_the_final_table(capsys: pytest.CaptureFixture[str]) -> None:
    (view,) = dry(capsys, "scale=smoke")
    names = metrics_of(view["spec"])
    protocols = ("knn1", "knn200", "knn1_100labels", "linear")
    networks = ("teacher", "student", "random", "pixels")
    curves = {
        f"{on}/{name}/{net}" for on in ("validation", "test") for name in ("knn1", "linear") for net in networks[:2]
    }
    collapse = {f"collapse/{name}" for name in ("embedding_std", "rankme", "uniformity", "alignment")}
    final = {f"final/{name}/{network}" for name in protocols for network in networks}
    assert names == curves | collapse | final | {"epoch", "loss", "lr", "images_per_second", "t-SNE"}
    lines = [panel["config"] for panel in panels(view["spec"]) if panel["viewType"] == "Run History Line Plot"]
    assert {(line["xAxis"], line["groupAgg"], line["groupArea"]) for line in lines} == {("epoch", "mean", "stddev")}


def test_a_view_has_one_line_per_row_in_the_rows_colour(capsys: pytest.CaptureFixture[str]) -> None:
    from wandb_workspaces.workspaces._run_color_groups import parse_run_color_group_key

    (view,) = dry(capsys, "experiment=fig2", "scale=smoke")
    section = view["spec"]["section"]
    (runs,) = section["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "row.value"}]
    assert section["settings"]["useRunsTableGroupingInPanels"]
    found = {}
    for key, colour in section["customRunColors"].items():
        group = parse_run_color_group_key(key)
        assert group is not None
        assert group["runset_id"] == runs["id"]
        ((entry),) = group["path"]
        assert entry["key"] == "config:row.value"
        found[entry["value"]] = colour
    assert found == row_colours(experiments.find("fig2").rows)


def test_every_dataset_has_its_view_and_the_definition_repeats_to_the_last_id(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "Api", lambda: pytest.fail("a dry run asked W&B"))
    first = dry(capsys, "scale=cpu", "entity=us", "project=mine")
    assert [view["displayName"] for view in first] == ["table3-cpu cifar10", "table3-cpu digits"]
    assert {(view["entity"], view["project"]) for view in first} == {("us", "mine")}
    assert dry(capsys, "scale=cpu", "entity=us", "project=mine") == first
    ids = [view["name"] for view in first] + [panel["__id__"] for view in first for panel in panels(view["spec"])]
    assert len(set(ids)) == len(ids)


def test_a_group_of_ones_own_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    (view,) = dry(capsys, "scale=smoke", 'group=mine, "2" × ü')
    asked = view["spec"]["section"]["runSets"][0]["filters"]["filters"]
    assert [(part["key"]["name"], part["value"]) for part in asked] == [
        ("group", 'mine, "2" × ü'),
        ("tags", ["digits"]),
    ]


def test_the_project_is_the_one_that_runs_go_to() -> None:
    logger, shown = (yaml.safe_load((PACKAGE / file).read_text()) for file in ("logger/wandb.yaml", "dashboard.yaml"))
    assert shown["project"] == logger["project"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["experiment=table33"], "there is no table or figure 'table33'; did you mean table3?"),
        (["scale=cpuu"], "table3 has no runs at scale=cpuu; did you mean cpu?"),
        (["dri=true"], "option dri is unknown; did you mean dry?"),
        (["dry=true", "group=it's"], "group=it's cannot be asked for: W&B's filters take no apostrophe"),
    ],
)
def test_a_wrong_argument_is_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wandb", *words]) == 2
    assert capsys.readouterr().err.startswith(f"ssl_bench: {sentence}")


def test_a_missing_package_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard.importlib.util, "find_spec", lambda name: None)
    assert main(["wandb", "dry=true"]) == 2
    assert capsys.readouterr().err.endswith("pip install 'ssl-bench[dashboard]'.\n")


def test_a_second_time_updates_the_views_and_adds_none(views: Views, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wandb"]) == 0
    addresses = capsys.readouterr().out.split()
    assert views.inserted == [True, True]
    first = dict(views.views)
    views.views["nw-of-somebody-v"] = {"id": "other", "name": "nw-of-somebody-v", "spec": "{}"}
    assert main(["wandb"]) == 0
    assert capsys.readouterr().out.split() == addresses
    assert views.inserted == [True, True, False, False]
    assert views.views.pop("nw-of-somebody-v")["spec"] == "{}"
    assert views.views == first


def test_what_is_saved_is_what_a_dry_run_prints(views: Views, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wandb", "experiment=fig2", "scale=smoke"]) == 0
    (address,) = capsys.readouterr().out.split()
    (printed,) = dry(capsys, "experiment=fig2", "scale=smoke", "entity=someone")
    (saved,) = views.views.values()
    assert (saved["type"], saved["name"], saved["displayName"]) == (
        "project-view",
        printed["name"],
        "fig2-smoke digits",
    )
    assert json.loads(saved["spec"]) == printed["spec"]
    assert address.endswith(f"/someone/ssl_bench?nw={saved['name'][3:-2]}")


@pytest.mark.parametrize(
    ("words", "wrong", "sentence"),
    [
        (["project=other"], {}, "there is no W&B project someone/other, or the key may not see it: upload runs first."),
        ([], {"entity": None}, "the key belongs to no W&B user or team: name one, as in entity=NAME."),
        ([], {"refuses": True}, "W&B did not take the view table3-cpu cifar10"),
    ],
)
def test_what_wandb_does_not_do_is_one_sentence(
    views: Views, words: list[str], wrong: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in wrong.items():
        setattr(views, name, value)
    assert main(["wandb", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"ssl_bench: {sentence}")


def test_without_a_key_one_sentence_states_how_to_get_one(
    views: Views, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    assert main(["wandb"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ssl_bench: W&B asks for a key (No API key configured")
    assert line.endswith("run wandb login or set WANDB_API_KEY; dry=true prints the dashboard without asking W&B.")


@pytest.mark.slow  # W&B's client tries three times
def test_without_a_network_is_one_sentence_before_long(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    command = [sys.executable, "-m", "ssl_bench", "report", "wandb"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("ssl_bench: W&B cannot be reached (")
    assert "connection refused" in line


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_a_sweep_is_one_group_and_logs_all_that_its_dashboard_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left_out = ("scale=", "epochs=", "evaluation.protocols=")
    words = [*(word for word in TINY if not word.startswith(left_out)), "epochs=1", "logger=wandb"]
    process = Forked(tmp_path, "-m", "experiment=fig2", "scale=smoke", "seed=0,1", *words)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    folders = sorted(record.parent for record in (tmp_path / "runs").glob("*/record.json"))
    runs = [Contents(folder / "wandb" / "latest-run") for folder in folders]
    (view,) = dry(capsys, "experiment=fig2", "scale=smoke")
    rows = list(experiments.find("fig2").rows)
    assert sorted((run.config["row"], run.config["seed"]) for run in runs) == [
        (r, s) for r in sorted(rows) for s in (0, 1)
    ]
    group, tag = view["spec"]["section"]["runSets"][0]["filters"]["filters"]
    for folder, run in zip(folders, runs, strict=True):
        assert run.id == folder.name
        assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
        assert [row["loss"] for row in run.curve] == [row["loss"] for row in metrics(folder)]
        assert run.group == group["value"] == "fig2-smoke"
        assert run.tags == tag["value"] == ["digits"]
        assert run.job_type == run.config["row"]
        logged = {name.removesuffix("/path") for row in run.history for name in row}
        summary = {name.removesuffix("/path") for name in run.summary}
        kept = {name for row in metrics(folder) for name in row}
        names = metrics_of(view["spec"])
        assert names <= logged & summary
        assert {name for name in names if not name.startswith("final/")} - kept == {"images_per_second", "t-SNE"}
        record = json.loads((folder / "record.json").read_text())
        assert {name for name in names if name.startswith("final/")} == {
            f"final/{protocol}/{network}" for network, scores in record["results"].items() for protocol in scores
        }
