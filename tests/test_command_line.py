"""``python -m ssl_bench`` as its users meet it: quick answers, one line for a mistake, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from forked import Forked
from program import Program
from ssl_bench.config.compose import compose

MISTAKES = [
    ["sedd=1"],
    ["method=byoll"],
    ["seed=abc"],
    ["optimizer.lr=-1"],
    ["byol"],
    ["seed=0,1"],
    ["seed=1", "seed=2"],
    ["--seed", "3"],
    ["--foo"],
    ["--info"],
    ["--cfg", "all"],
    ["--cfg"],
    ["-cn", "other"],
    ["--config-dir=."],
    ["--hydra-help"],
    ["--help", "sedd=1"],
    ["-m", "seed=0,-1"],
    ["-m", "hydra.sweep.dir=x"],
    ["runs_dir=a\nb", "seed=a\nb"],
    # What no machine and no images could mend.
    ["trainer=ddp", "trainer.devices=3"],
    ["trainer.devices=3", "batch_size=100"],
    ["dataset=folder"],
    ["batch_size=4096", "subset=null"],
    ["dataset=folder", "dataset.root=.", "batch_size=64", "subset=32"],
    ["subset=2000"],
    ["dataset=cifar10", "labels=50001"],
    ["augment.groups.local.count=2", "augment.groups.local.size=64"],
    ["evaluation.protocols=[]"],
    ["evaluation.linear.learning_rates=[]"],
    ["trainer.precision=16-mixed", "trainer.accelerator=cpu"],
    ["logger=tensorboard"],
    ["-m", "seed=0,1", "batch_size=64,4096", "subset=null"],
]
# Answers without importing torch, each as [status, stdout, stderr]; all in one process, which starts in a second.
ANSWER = """
import contextlib, importlib.util, io, json, sys
installed = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tensorboard" else installed(name, *rest)
from ssl_bench.__main__ import main
answers = []
for overrides in json.loads(sys.argv[1]):
    sys.argv[1:] = overrides
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main()
    answers.append([status, out.getvalue(), err.getvalue()])
assert not {"torch", "numpy", "pytorch_lightning"} & set(sys.modules)
print(json.dumps(answers))
"""


def answers(*calls: list[str], cwd: Path | None = None, **environment: str) -> list[tuple[int, str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, json.dumps(calls)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [(status, out, err) for status, out, err in json.loads(done.stdout)]


@pytest.mark.parametrize(("full_error", "mistakes"), [("0", MISTAKES), ("1", MISTAKES[:4])])
def test_mistakes_get_one_line_and_status_2_without_torch(
    full_error: str, mistakes: list[list[str]], tmp_path: Path
) -> None:
    for overrides, (status, out, err) in zip(
        mistakes, answers(*mistakes, cwd=tmp_path, HYDRA_FULL_ERROR=full_error), strict=True
    ):
        assert (status, out) == (2, ""), overrides
        assert err.startswith("ssl_bench: "), overrides
        assert err.count("\n") == 1, overrides
        assert err.endswith((".\n", "?\n")), overrides
    assert not list(tmp_path.iterdir())


ELSEWHERE = """
import contextlib, importlib, io, json, sys
for module, overrides in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as err:
        status = importlib.import_module(module).main(overrides)
    assert status == 2, (overrides, status)
    print(err.getvalue(), end="")
assert not {"torch", "numpy", "pytorch_lightning"} & set(sys.modules)
"""


def test_other_programs_answer_such_mistakes_without_torch_too(tmp_path: Path) -> None:
    calls = [
        ("ssl_bench.cli.sweep", ["table3", "scale=smoke", "trainer.devices=3"]),
        ("ssl_bench.cli.plan", ["table3", "scale=smoke", "batch_size=4096"]),
        ("ssl_bench.cli.data", ["verify", "dataset=folder"]),
        ("ssl_bench.cli.evaluate", [".", "dataset=folder"]),
        ("ssl_bench.cli.evaluate", [".", "dataset=digits", "evaluation.protocols=[]"]),
    ]
    command = [sys.executable, "-c", ELSEWHERE, json.dumps(calls)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    begins = ["batch_size=", "batch_size=4096", "dataset=folder", "dataset=folder", "evaluation.protocols=[]"]
    for line, begin in zip(done.stdout.splitlines(), begins, strict=True):
        assert line.startswith(f"ssl_bench: {begin}"), line


@pytest.mark.skipif(sys.platform == "win32", reason="measures the processor time of a child process")
@pytest.mark.parametrize(("overrides", "status"), [(["--help"], 0), (["sedd=1"], 2), (["dataset=folder"], 2)])
def test_answers_come_within_a_second_and_a_half(overrides: list[str], status: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ssl_bench", *overrides], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    # Processor time, which other programs on the machine change less than the clock's.
    _, left, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(left)
    assert process.returncode == status
    assert used.ru_utime + used.ru_stime < 1.5


def options_in(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= options_in(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return {key: value for key, value in found.items() if key.split(".")[-1] not in ("name", "target")}


def test_help_shows_every_option_of_the_chosen_files_with_default_allowed_values_and_meaning() -> None:
    calls = [[f"method={method}", "--help"] for method in ("byol", "clbo")]
    *both, (_, byol, _) = answers(*calls, ["method=byol", "epochs=3", "--help"], COLUMNS="100")
    for (method, _), (status, out, err) in zip(calls, both, strict=True):
        assert (status, err) == (0, "")
        lines = out.splitlines()
        shown = {line.split("=")[0].strip() for line in lines if line.startswith("  ") and "=" in line.split(" ")[2]}
        assert set(options_in(compose([method]).as_dict())) <= shown
        assert max(map(len, lines)) <= 100
        assert "  method=" + method.partition("=")[2] + " " in out
    (entry,) = [line for line in byol.splitlines() if line.startswith("  method.momentum=")]
    assert " ".join(entry.split()) == "method.momentum=0.9 [0..1] η of ξ ← ηξ + (1 − η)θ"
    assert "  epochs=3 " in byol
    assert "method.lookahead" not in byol


def test_cfg_job_prints_the_configuration_that_would_run(tmp_path: Path) -> None:
    overrides = ["method=byol", "seed=3", "runs_dir=/tmp/ü"]
    ((status, out, err),) = answers(["--cfg", "job", *overrides], cwd=tmp_path)
    assert (status, err) == (0, "")
    assert yaml.safe_load(out) == compose(overrides).as_dict()


def test_the_folder_it_starts_in_does_not_matter(tmp_path: Path) -> None:
    """A conf of the user's own, a folder without write permission (even for root), spaces and umlauts."""
    own = tmp_path / "my ü=folder"
    (own / "conf" / "method").mkdir(parents=True)
    (own / "conf" / "__init__.py").touch()
    (own / "conf" / "config.yaml").write_text("seed: 99\n")
    (own / "conf" / "method" / "clbo.yaml").write_text("name: mine\n")
    folders = [own, *(folder for folder in [Path("/proc")] if folder.is_dir())]
    for folder in folders:
        call, sweep = answers(["--cfg", "job"], ["-m", "seed=0,-1"], cwd=folder)
        assert yaml.safe_load(call[1]) == compose().as_dict()
        assert sweep[0] == 2


def test_a_sweep_leaves_no_files_and_folders_of_hydra(tmp_path: Path) -> None:
    code = (
        "import sys; from ssl_bench.config import command_line\n"
        "sys.exit(command_line.main(lambda c: print(c.seed), ['-m', 'seed=0,1']))"
    )
    for folder in (tmp_path, Path("/proc")):
        if folder.is_dir():
            done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stdout, done.stderr) == (0, "0\n1\n", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_line(program: Program) -> None:
    done = program("scale=smoke", "runs_dir=/proc/runs")
    assert done.returncode == 2
    assert done.stderr.startswith("ssl_bench: runs_dir=/proc/runs cannot be written")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_sweep_leaves_one_record_per_run(tmp_path: Path) -> None:
    small = ("scale=smoke", "epochs=1", "subset=64", "evaluation.protocols=[knn1]", "evaluation.curves=[]")
    process = Forked(tmp_path, "-m", "seed=0,1", "method=simclr,byol", "runs_dir=my ü=runs", *small)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    records = [json.loads(file.read_text()) for file in (tmp_path / "my ü=runs").glob("*/record.json")]
    expected = [("byol", 0), ("byol", 1), ("simclr", 0), ("simclr", 1)]
    assert sorted((record["method"], record["seed"]) for record in records) == expected
