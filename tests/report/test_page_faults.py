"""What is wrong in one place of a page, or asked for wrongly, costs nothing but that."""

from __future__ import annotations

import http.client
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up import record, records_of
from test_page import data, make, named, page

from ssl_bench.config.compose import compose
from ssl_bench.config.experiments import Cell
from ssl_bench.page import contents, findings, runs, serve, write
from ssl_bench.page.write import OURS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("faults"))


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "data").mkdir()
    images = tmp_path / "data" / "cifar-10-python.tar.gz"
    images.write_text("images", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    page(made, Path(), named(made), status=2)
    assert capsys.readouterr().err == (
        "ssl_bench: out=. has files that are not of a page: choose a new or an empty folder.\n"
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [images]


def test_of_data_a_page_deletes_its_own_files_alone(made: Path, tmp_path: Path) -> None:
    page(made, tmp_path, named(made))
    earlier = ("e7.js", "r0a.js", "p0123456789ab.js", "s0123456789ab-300.js", "d0.png", "v12.png")
    others = ("cifar-10-python.tar.gz", "results.js", "dogs.png", "stl10_binary", "e.js")
    for name in (*earlier, *others):
        (tmp_path / "data" / name).write_text("", encoding="utf-8")
    page(made, tmp_path, named(made))
    left = {path.name for path in (tmp_path / "data").iterdir()}
    assert left >= {*others, "index.js", "e0.js"}
    assert not left & {*earlier}


def test_a_page_that_was_interrupted_is_made_by_the_same_command(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path, content: bytes) -> None:
        if path.name == "index.js":
            raise KeyboardInterrupt
        put(path, content)

    put = write._put
    monkeypatch.setattr(write, "_put", interrupt)
    page(made, tmp_path, named(made), status=130)
    monkeypatch.undo()
    page(made, tmp_path, named(made))
    assert "Findings" in (tmp_path / "index.html").read_text(encoding="utf-8")


def experiment(file: Path, **words: str) -> str:
    """A file that describes one row of these arguments."""
    rows = {"row": " ".join(f"{key.replace('__', '.')}={value}" for key, value in words.items())}
    sweep = {"rows": rows, "datasets": {"smoke": ["digits"]}, "seeds": [0]}
    file.write_text(yaml.safe_dump({"sweep": sweep, "show": {"kind": "table"}}), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"method": "simclr", "method__temprature": "0.1"}, "option method.temprature is unknown"),
        ({"method": "elsewhere"}, "method=elsewhere is unknown"),
    ],
)
def test_an_experiment_that_cannot_be_composed_states_why_and_the_others_are_shown(
    words: dict[str, str], sentence: str, made: Path, tmp_path: Path, capsys: Any
) -> None:
    wrong = experiment(tmp_path / "wrong.yaml", **words)
    page(made, tmp_path / "site", wrong, named(made), "scale=smoke")
    assert sentence in data(tmp_path / "site", "e0")["problem"]
    assert len(data(tmp_path / "site", "e1")["runs"]) == 6
    page(made, tmp_path / "alone", wrong, "scale=smoke", status=2)  # where nothing else is asked for
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "alone").exists()


BLOCK = """# Title

    {}
"""


@pytest.mark.parametrize(
    ("lines", "report"),
    [
        (["it doesn't matter", "python -m ssl_bench report fig3 out=x"], ["fig3"]),
        (["python -m ssl_bench report fig3 scale=cpu  # it's quick"], ["fig3", "scale=cpu"]),
        (['N="seeds=0,1"', "ssl-bench report fig3 $N out=x"], ["fig3", "seeds=0,1"]),
        ([".venv/bin/python -m ssl_bench report 'my file.yaml'"], ["my file.yaml"]),
        (["python -m ssl_bench report what's this"], None),
        (["python -m ssl_bench reports"], None),
    ],
)
def test_the_report_of_a_readme_is_found_among_any_lines(
    lines: list[str], report: list[str] | None, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text(BLOCK.format("\n    ".join(lines)), encoding="utf-8")
    assert findings.read(tmp_path).report == report


@pytest.mark.parametrize(
    "chosen",
    [
        ["backbone=vit", "backbone.arguments={depth: 1, mlp_ratio: 2.0}"],
        ["backbone=resnet18", "optimizer.name=muon", "epochs=3"],
        [],
    ],
)
def test_the_command_of_a_run_gives_its_configuration_again(chosen: list[str]) -> None:
    config = compose(["method=byol", "dataset=digits", "scale=cpu", "seed=3", *chosen])
    (made,) = records_of([record(Cell("row", "digits", 3, ()), config)])
    words = runs.words(made)
    assert words is not None
    assert compose(words) == config


def test_a_watched_page_begins_before_the_first_run_and_outlives_mistakes(tmp_path: Path, capsys: Any) -> None:
    made = make(tmp_path / "made")
    site = tmp_path / "site"
    asked = contents.request([f"runs_dir={tmp_path / 'runs'}", f"out={site}", "watch=true"])
    seen = []

    def wait(seconds: float) -> None:
        seen.append(len(data(site, "index")["runs"]))
        if len(seen) == 1:
            (made / "runs").rename(tmp_path / "runs")
        elif len(seen) == 2:
            (site / "index.html").write_text("mine", encoding="utf-8")
            next((tmp_path / "runs").iterdir()).rename(tmp_path / "moved")
        elif len(seen) == 3:
            assert f"{site} stays as it was: out={site} has another index.html" in capsys.readouterr().err
            (site / "index.html").write_text(OURS, encoding="utf-8")
            next((tmp_path / "runs").iterdir()).rename(tmp_path / "moved too")
        else:
            raise KeyboardInterrupt

    serve.serve(asked, contents.contents(asked), wait=wait)
    assert seen == [0, 6, 6, 4]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("bench.lan", 200),  # port 80, which browsers leave out
        ("Bench.lan:8000", 200),
        ("localhost", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("example.org", 403),
        ("bench.lan.example.org:8000", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_the_page_is_served_under_the_name_that_was_asked_for_and_no_other(
    header: str, status: int, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("", encoding="utf-8")
    handler = partial(serve.Handler, directory=str(tmp_path), host="Bench.lan")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = http.client.HTTPConnection(*server.server_address[:2])
        connection.request("GET", "/", headers={"Host": header})
        assert connection.getresponse().status == status
        connection.close()
        server.shutdown()
