"""A user's own methods, datasets and experiments, in a folder of their own and with the package untouched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
OWN = Path(__file__).parent / "own"
Done = subprocess.CompletedProcess[str]


def program(*arguments: str, folder: Path, cwd: Path, **environment: str) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "ssl_bench", *arguments],
        cwd=cwd,
        env={**os.environ, "SSL_BENCH_PATH": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_options_of_ones_own_are_checked_and_shown_as_all_others(tmp_path: Path) -> None:
    done = program("method=mine", "dataset=squares", "--cfg", "job", folder=OWN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    assert config["method"]["sharpness"] == 0.5
    assert config["dataset"]["name"] == "squares"
    assert config["dataset"]["stem"] == "small"  # digits'
    done = program("method=mine", "method.sharpnes=1", folder=OWN, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "ssl_bench: option method.sharpnes is unknown; did you mean method.sharpness?\n",
    )
    done = program("method=mine", "method.sharpness=0", folder=OWN, cwd=tmp_path)
    assert (done.returncode, "above 0" in done.stderr) == (2, True)
    done = program("method=mine", "dataset=squares", "--help", folder=OWN, cwd=tmp_path)
    assert "T, temperature of the softmax" in done.stdout


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "has no folder conf, which is to hold method/, dataset/ and the like."),
        ({"conf/methods/mine.yaml": ""}, "is in no group: put it into one of conf/{augment,"),
        ({"conf/method/byol.yaml": ""}, "has the name of a file that is there already: give it another one."),
    ],
)
def test_a_folder_that_does_not_fit_is_one_sentence(files: dict[str, str], sentence: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    done = program("--help", folder=tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ssl_bench: SSL_BENCH_PATH={tmp_path}: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "override", "sentence"),
    [
        (
            "name: mine",
            "name: other",
            "",
            "conf/method/mine.yaml: name is other; set it to mine, as the file is called.",
        ),
        (
            "projector:",
            "need: {smaller_views: false}\nprojector:",
            "",
            "conf/method/mine.yaml: there is no block need; did you mean needs?",
        ),
        (
            "sharpness: 0.5",
            "sharpness: 0.0",
            "",
            "conf/method/mine.yaml, default: method.sharpness=0.0 is not allowed: method.sharpness is a number ",
        ),
        (
            "sharpness: 0.5  #",
            "sharpness: 0.5\n#",
            "method.sharpness=1",
            "conf/method/mine.yaml: sharpness cannot be set, for its line has no comment: write what is allowed and ",
        ),
    ],
)
def test_what_is_wrong_with_a_file_of_ones_own_is_named(
    old: str, new: str, override: str, sentence: str, tmp_path: Path
) -> None:
    shutil.copytree(OWN, tmp_path / "own")
    file = tmp_path / "own/conf/method/mine.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    done = program("method=mine", *filter(None, [override]), "--cfg", "job", folder=tmp_path / "own", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"ssl_bench: {sentence}")


def test_a_dataset_without_views_of_its_own_says_what_to_write(tmp_path: Path) -> None:
    shutil.copytree(OWN, tmp_path / "own")
    (tmp_path / "own/conf/augment/squares.yaml").unlink()
    done = program("dataset=squares", folder=tmp_path / "own", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(
        "ssl_bench: conf/augment/squares.yaml is missing: write it, or set augment= to one of "
    )


def test_an_installed_package_adds_its_own_by_an_entry_point(tmp_path: Path) -> None:
    package, about = tmp_path / "doe", tmp_path / "doe-1.0.dist-info"
    shutil.copytree(OWN / "conf" / "method", package / "conf" / "method")
    (package / "__init__.py").touch()
    (package / "my_method.py").write_text((OWN / "my_method.py").read_text())
    file = package / "conf" / "method" / "mine.yaml"
    file.write_text(file.read_text().replace("target: my_method", "target: doe.my_method"))
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: doe\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[ssl_bench]\nmine = doe\n")
    done = subprocess.run(
        [sys.executable, "-m", "ssl_bench", "method=mine", "--cfg", "job"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["method"]["target"] == "doe.my_method.Mine"
    found = "import ssl_bench.config.sources, sys; print(any(place.endswith('doe') for place in sys.path))"
    assert (
        subprocess.run([sys.executable, "-c", found], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


@pytest.mark.slow
def test_the_wheel_takes_a_method_a_dataset_and_a_table_from_outside(tmp_path: Path) -> None:
    """Installed elsewhere; the folder's own files are all that is added."""
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for command in (
        ["build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)],
        ["pip", "install", "--quiet", "--no-deps", "--target", str(site), "WHEEL"],
    ):
        arguments = [str(next(tmp_path.glob("*.whl"))) if part == "WHEEL" else part for part in command]
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True, timeout=300)
    before = sorted(site.rglob("*"))

    def run(*arguments: str) -> str:
        done = program(*arguments, folder=OWN, cwd=elsewhere, PYTHONPATH=str(site), PYTHONDONTWRITEBYTECODE="1")
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("sweep", "duel", "scale=smoke")
    table = run("report", "duel", "scale=smoke")
    assert "| Mine " in table
    assert "| SimCLR " in table
    assert "n = 1" in table or "one seed" in table
    records = [json.loads(file.read_text()) for file in elsewhere.glob("runs/*/record.json")]
    assert {record["method"]: record["dataset"] for record in records} == {"mine": "squares", "simclr": "squares"}
    # Another name of the same thing gives the same figures.
    assert len({json.dumps(record["results"]["student"]) for record in records}) == 1
    own_table = elsewhere / "mine_alone.yaml"
    text = (OWN / "conf/experiment/duel.yaml").read_text().replace(", SimCLR: method=simclr", "")
    own_table.write_text(text)
    assert "1 done" in run("sweep", "mine_alone.yaml", "scale=smoke")
    assert "**mine_alone**" in run("report", "mine_alone.yaml", "scale=smoke")
    assert "Every method holds." in run("check", "method=mine")
    run("data", "verify", "dataset=squares")
    assert sorted(site.rglob("*")) == before
    done = program("bench", folder=OWN, cwd=elsewhere, PYTHONPATH=str(site))
    assert (done.returncode, "clone of the repository" in done.stderr) == (2, True)
