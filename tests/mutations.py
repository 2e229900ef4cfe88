"""Break the code on purpose, one place at a time, and see that a test notices: python tests/mutations.py [WORD …].

A WORD chooses the mutations whose names contain it. Everything happens in temporary copies. There the tests that
mutations.yaml names must first pass; then each mutation must make its own fail. One that does not fail them shows
that a test is missing.
"""

from __future__ import annotations

import ast
import gc
import multiprocessing
import os
import queue
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from patches import PatchError, patched, patched_value

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_suffix(".yaml")
TIME_LIMIT = 600  # seconds for the tests of one mutation; a busy machine may need many
AT_ONCE = 2
# Imported once; every run is a fork of a process that has imported them, and nothing of ours.
LIBRARIES = ["pytest", "torch", "torchvision", "pytorch_lightning", "hydra", "scipy.stats", "sklearn.neighbors"]
MISTAKE = re.compile(r"\b(NameError|SyntaxError|IndentationError|ImportError|ModuleNotFoundError|UnboundLocalError)\b")


T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Mutation:
    """One place to break."""

    name: str
    file: str  # a module of the package by the end of its path, or a YAML file
    place: str  # function, Class or Class.function; a key of a YAML file; empty: the whole file
    patch: str
    tests: tuple[str, ...]  # files of tests by name, or ``file::test``; one must fail

    def path(self, root: Path) -> Path:
        """The file to break within the checkout or copy ``root``."""
        return root / self.file if self.file.endswith(".yaml") else only(root / "src" / "ssl_bench", f"{self.file}.py")

    def apply(self, text: str) -> str:
        """``text``, the file's, broken, and without comments where it is Python; PatchError where the patch misfits."""
        if self.file.endswith(".yaml"):
            return patched_value(text, self.place, self.patch)
        return ast.unparse(patched(text, self.place, self.patch))

    def selection(self, root: Path) -> list[str]:
        """Its tests as pytest names them; of whole files the quick tests alone."""
        named = [test.partition("::") for test in self.tests]
        files = [(only(root / "tests", f"{file}.py"), test) for file, _, test in named]
        chosen = [f"{file.relative_to(root)}::{test}" if test else str(file.relative_to(root)) for file, test in files]
        return chosen if any(test for _, test in files) else [*chosen, "-m", "not slow"]


def only(folder: Path, end: str) -> Path:
    """The one file below ``folder`` whose path ends so."""
    found = [
        path for path in folder.rglob(Path(end).name) if f"/{path.relative_to(folder).as_posix()}".endswith(f"/{end}")
    ]
    assert len(found) == 1, f"{end} names {len(found)} files in {folder}, not one"
    return found[0]


def _table() -> Iterator[Mutation]:
    for file, content in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items():
        tests = content.pop("tests")
        for place, patches in content.items():
            for name, entry in patches.items():
                patch, chosen = (entry, tests) if isinstance(entry, str) else entry
                yield Mutation(name, file, "" if place == "module" else place, patch, tuple(chosen.split()))


MUTATIONS = list(_table())


def copied(root: Path) -> Path:
    """The checkout's code and tests in the empty folder ``root``."""
    root.mkdir()
    for folder in ("src", "conf", "tests", "benchmarks"):
        shutil.copytree(
            ROOT / folder, root / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "experiments").symlink_to(ROOT / "experiments")  # whose records tests read
    link = root / "src" / "ssl_bench" / "conf"
    if not link.exists():  # where the package is installed, it is mapped there
        link.symlink_to(Path("..", "..", "conf"))
    return root


def run_pytest(root: Path, tests: Sequence[str], output: Path) -> None:
    """In a process of its own: leave with pytest's status; its output goes to ``output``."""
    os.setsid()  # so that ranks that tests start can be ended with it
    gc.freeze()  # pytest collects garbage again and again, which need not look at the libraries
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(root)
    folders = [os.fspath(root / folder) for folder in ("src", "", "tests", "tests/methods")]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    # A source file may change twice within the second by which Python dates its bytecode.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    os.environ["COLUMNS"] = "1000"  # the summary shows why a test failed only where a line has room for it
    sys.path[:] = [*folders, *(path for path in sys.path if not Path(path).resolve().is_relative_to(ROOT / "tests"))]
    try:
        import pytest

        import ssl_bench

        assert Path(ssl_bench.__file__).is_relative_to(root), f"{ssl_bench.__file__} is not the copy"
        # The libraries are here before pytest, which warns of those that bring plugins.
        late = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *late, *tests]))
    except BaseException:  # status 1 is for tests that failed
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@dataclass(frozen=True)
class Outcome:
    """How a run of pytest ended."""

    status: int | None  # None: it ran into the time limit
    output: str

    @property
    def verdict(self) -> str:
        """ "caught" where tests failed, "survived" where none did, else "broken": no test judged the mutation."""
        if self.status == 0:
            return "survived"
        return "caught" if self.status == 1 and not MISTAKE.search(self.summary) else "broken"

    @property
    def summary(self) -> str:
        """The first failure, or the last line."""
        if self.status is None:
            return f"no answer within {TIME_LIMIT} seconds"
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return next((line for line in lines if line.startswith(("FAILED ", "ERROR "))), lines[-1] if lines else "")


def outcome(context: multiprocessing.context.ForkServerContext, root: Path, tests: Sequence[str]) -> Outcome:
    """Run ``tests`` of the copy ``root``."""
    output = root / "output.txt"
    process = context.Process(target=run_pytest, args=(root, tuple(tests), output))
    process.start()
    process.join(TIME_LIMIT)
    status = process.exitcode
    if status is None:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return Outcome(status, output.read_text(errors="replace"))


def judged(context: multiprocessing.context.ForkServerContext, root: Path, mutation: Mutation) -> Outcome:
    """How the mutation's tests end; afterwards the copy is whole again."""
    path = mutation.path(root)
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(mutation.apply(text), encoding="utf-8")
        return outcome(context, root, mutation.selection(root))
    except PatchError as misfit:
        return Outcome(2, str(misfit))
    finally:
        path.write_text(text, encoding="utf-8")


def in_copies(roots: Sequence[Path], act: Callable[[Path, T], R], items: Sequence[T]) -> Iterator[R]:
    """``act(copy, item)`` of every item, as many at once as there are copies, in the order of the items."""
    free: queue.Queue[Path] = queue.Queue()
    for root in roots:
        free.put(root)

    def one(item: T) -> R:
        root = free.get()
        try:
            return act(root, item)
        finally:
            free.put(root)

    with ThreadPoolExecutor(len(roots)) as pool:
        try:
            yield from pool.map(one, items)
        finally:
            pool.shutdown(cancel_futures=True)  # where nobody asks for the rest


def main(words: Sequence[str]) -> int:
    """0 if every chosen mutation is caught, 1 if not, 2 for words that choose nothing and tests that fail untouched."""
    lost = [word for word in words if not any(word in mutation.name for mutation in MUTATIONS)]
    if lost:
        print(f"no mutation has {lost[0]!r} in its name", file=sys.stderr)
        return 2
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    started = time.monotonic()
    os.environ.setdefault("TRITON_INTERPRET", "1")  # as in conftest.py: before the libraries bring Triton
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    escaped = 0
    with tempfile.TemporaryDirectory(prefix="mutations") as folder:
        roots = [copied(Path(folder).resolve() / f"copy{number}") for number in range(AT_ONCE)]
        for root in roots:  # so that nothing but the mutation differs between the two runs
            for path in {mutation.path(root) for mutation in chosen if not mutation.file.endswith(".yaml")}:
                path.write_text(ast.unparse(ast.parse(path.read_text(encoding="utf-8"))), encoding="utf-8")
        selections = list(dict.fromkeys(tuple(mutation.selection(roots[0])) for mutation in chosen))
        print(f"{len(selections)} selections of tests on the untouched code", flush=True)
        untouched = in_copies(roots, lambda root, tests: outcome(context, root, tests), selections)
        for tests, passed in zip(selections, untouched, strict=True):
            if passed.status != 0:
                print(f"{passed.output}\n{' '.join(tests)} must pass before anything is broken: {passed.summary}")
                return 2
            if re.search(r"\bskipped\b", passed.output):
                print(f"skipped: {' '.join(tests)}", flush=True)
        results = in_copies(roots, lambda root, mutation: judged(context, root, mutation), chosen)
        for mutation, found in zip(chosen, results, strict=True):
            reason = "" if found.verdict == "caught" else f"\n          {' '.join(mutation.tests)}: {found.summary}"
            print(f"{found.verdict:<9} {mutation.name}{reason}", flush=True)
            escaped += found.verdict != "caught"
    print(f"{len(chosen) - escaped} of {len(chosen)} caught in {time.monotonic() - started:.0f} s")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
