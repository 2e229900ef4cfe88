"""What every entry point answers: help, a mistake in one sentence, Ctrl-C."""

from __future__ import annotations

import gc
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

import ssl_bench
from ssl_bench.__main__ import main as program
from ssl_bench.entry import importing, print_error, run_command
from ssl_bench.errors import NO_ROOM, UserError

Captured = pytest.CaptureFixture[str]
SOURCE = Path(ssl_bench.__file__).parent
# What users start; a rank of `launch` inherits what its launcher has set.
ENTRIES = [
    ".".join(file.relative_to(SOURCE).with_suffix("").parts)
    for file in [SOURCE / "__main__.py", *sorted((SOURCE / "cli").glob("*.py")), SOURCE / "report" / "dashboard.py"]
]


def fail(arguments: list[str]) -> NoReturn:
    raise UserError(f"{arguments[0]} is\n  wrong.")


def stop(arguments: list[str]) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_goes_before_everything_else(option: str, capsys: Captured) -> None:
    assert run_command(["a=b", option], lambda: "usage", fail) == 0
    assert capsys.readouterr() == ("usage\n", "")


def test_a_mistake_is_one_line_and_a_status(capsys: Captured) -> None:
    assert run_command(["a"], lambda: "usage", fail) == 2
    assert capsys.readouterr() == ("", "ssl_bench: a is wrong.\n")


@pytest.mark.parametrize(("started", "printed"), [({}, True), ({"RANK": "1", "WORLD_SIZE": "2"}, False)])
def test_of_several_processes_one_speaks_but_a_variable_left_in_the_shell_silences_nobody(
    started: dict[str, str], printed: bool, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"LOCAL_RANK": "1", **started}.items():
        monkeypatch.setenv(name, value)
    assert run_command(["a"], lambda: "usage", fail) == 2
    assert capsys.readouterr().err == ("ssl_bench: a is wrong.\n" if printed else "")


def test_spaces_of_a_name_are_kept_and_lines_joined(capsys: Captured) -> None:
    print_error(UserError("my  pictures\n  do not exist."))
    assert capsys.readouterr().err == "ssl_bench: my  pictures do not exist.\n"


def test_ctrl_c_while_a_command_is_imported_is_no_traceback(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: stop([]))
    assert program(["sweep"]) == 130
    assert capsys.readouterr() == ("", "ssl_bench: interrupted.\n")


def test_garbage_is_searched_for_again_once_libraries_are_imported() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_the_work_returns_is_the_status(capsys: Captured) -> None:
    assert run_command([], lambda: "usage", lambda given: None) == 0
    assert run_command([], lambda: "usage", lambda given: 1) == 1
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_is_no_traceback(capsys: Captured) -> None:
    assert run_command([], lambda: "usage", stop, interrupted="interrupted; resume.") == 130
    assert capsys.readouterr() == ("", "ssl_bench: interrupted; resume.\n")


LONG = """
import sys
from ssl_bench.__main__ import main as program
from ssl_bench.entry import print_error, run_command

def work(arguments):
    for number in range(int(arguments[0])):
        print(number)

sys.exit(run_command(None, lambda: "usage", work))
"""


@pytest.mark.parametrize("lines", ["5", "100000"])  # less and more than a pipe holds
def test_an_output_that_nobody_reads_on_ends_without_a_word(lines: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", LONG, lines], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full disk")
@pytest.mark.parametrize("lines", ["5", "100000"])
def test_an_output_that_the_disk_has_no_room_for_is_one_sentence(lines: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", LONG, lines], stdout=full, stderr=subprocess.PIPE, text=True)
        sentence = "standard output cannot be written (No space left on device); what was saved is whole."
        assert (done.returncode, done.stderr) == (NO_ROOM, f"ssl_bench: {sentence}\n")
        silent = subprocess.run([sys.executable, "-c", LONG, lines], stdout=full, stderr=full)
        assert silent.returncode == NO_ROOM
        script = (
            "from ssl_bench.entry import run_command as r; import sys; sys.exit(r(['x'], str, lambda given: 1 / 0))"
        )
        script = script.replace("1 / 0", "(_ for _ in ()).throw(__import__('ssl_bench.errors').errors.UserError('no'))")
        assert subprocess.run([sys.executable, "-c", script], stderr=full).returncode == 2


def test_a_terminal_that_was_closed_ends_nothing() -> None:
    """It is the run's to save first, as the signal of the terminal's end asks for."""
    work = "lambda given: print('a', flush=True) or input() or print('b', flush=True) or print('c') or 7"
    script = f"import sys, ssl_bench.entry as e; sys.exit(e.run_command([], str, {work}))"
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=terminal, stderr=subprocess.PIPE, text=True
    )
    os.close(terminal)
    assert os.read(master, 1) == b"a"
    os.close(master)
    _, errors = process.communicate("\n")
    assert (process.returncode, errors) == (7, "")


def test_names_that_are_no_text_are_shown_as_they_can_be() -> None:
    script = "import sys, ssl_bench.entry as e; sys.exit(e.run_command([], str, lambda given: print('caf\\udce9')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert (done.returncode, done.stdout) == (0, b"caf\\udce9\n"), done.stderr


def test_a_closed_output_is_no_crash() -> None:
    script = "import sys; sys.stdout = None; from ssl_bench.entry import run_command as r; sys.exit(r([], str, len))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_pipe_that_breaks_is_a_crash() -> None:
    def work(arguments: list[str]) -> NoReturn:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_command([], lambda: "usage", work)


def test_without_arguments_the_command_lines_are_taken(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr("sys.argv", ["program", "x"])
    assert run_command(None, lambda: "usage", fail) == 2
    assert capsys.readouterr().err == "ssl_bench: x is wrong.\n"


DRAW = """
import subprocess, sys
from ssl_bench.__main__ import main as program
from ssl_bench.entry import print_error, run_command

def work(arguments):
    import matplotlib

    print(matplotlib.get_backend())
    return subprocess.run([sys.executable, "-c", "import matplotlib; print(matplotlib.get_backend())"]).returncode

sys.exit(run_command([], lambda: "usage", work))
"""


def test_what_a_notebook_sets_for_pictures_stops_neither_the_program_nor_its_processes() -> None:
    environment = {**os.environ, "MPLBACKEND": "module://of_a_notebook.elsewhere", "PYTHONUNBUFFERED": "1"}
    done = subprocess.run([sys.executable, "-c", DRAW], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.lower().split()) == (0, ["agg", "agg"]), done.stderr


def test_no_entry_point_imports_what_draws_before_it_is_asked_to_work() -> None:
    """Too early for what `guarded` sets; and answers would be slow."""
    names = sorted({f"ssl_bench.{name}" for name in ENTRIES})
    script = f"import importlib, sys\nfor name in {names}:\n    importlib.import_module(name)\n"
    script += "print([name for name in ('torch', 'matplotlib', 'torchmetrics') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
