"""What is wrong in one place of a page, or asked for wrongly, costs nothing but that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from test_page import data, make, named, page

from ssl_bench.page import findings, write


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
