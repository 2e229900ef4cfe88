"""The digest of the code behind a run's figures: what it notices and what it does not."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_bench.config.options import GROUPS
from ssl_bench.config.sources import PACKAGE
from ssl_bench.results import code

SIMCLR, BYOL = "ssl_bench.methods.simclr.SimCLR", "ssl_bench.methods.byol.BYOL"
Change = Callable[[ast.Module, Any], None]
Edit = Callable[[str, str, Change], None]


def digest(target: str = SIMCLR) -> str | None:
    code.code_digest.cache_clear()
    return code.code_digest(target)


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Change the syntax tree of a module's definition, as an editor would before the program is started."""

    def edited(module: str, name: str, change: Change) -> None:
        tree = ast.parse(code.TEXTS[f"ssl_bench.{module}"])
        found = [node for node in tree.body if name in code._defines(node)]
        assert found, f"{module} has no {name}"
        change(tree, found[0])
        monkeypatch.setitem(code.TEXTS, f"ssl_bench.{module}", ast.unparse(ast.fix_missing_locations(tree)))

    yield edited
    monkeypatch.undo()
    digest()


def compute_otherwise(tree: ast.Module, node: Any) -> None:
    if isinstance(node, ast.Assign):
        node.value = ast.Constant("another value")
    else:
        node.body += ast.parse("another = 1").body


def add_a_function(tree: ast.Module, node: Any) -> None:
    tree.body += ast.parse(f"def added(x):\n    return {node.name}(x)").body


def act_on_import(tree: ast.Module, node: Any) -> None:
    tree.body += ast.parse("print()").body


def write_otherwise(tree: ast.Module, node: Any) -> None:
    """Other docstrings, annotations and sentences of errors; comments and layout go with the source."""
    for part in ast.walk(tree):
        if isinstance(part, (ast.FunctionDef, ast.ClassDef)):
            has_one = ast.get_docstring(part) is not None
            part.body = [ast.Expr(ast.Constant("Another docstring.")), *part.body[has_one:]]
        if isinstance(part, ast.FunctionDef):
            part.returns = ast.Name("Another")
            for argument in [*part.args.args, *part.args.kwonlyargs]:
                argument.annotation = ast.Name("Another")
        if isinstance(part, ast.Raise) and isinstance(part.exc, ast.Call):
            part.exc.args = [ast.Constant("Another sentence.")]


@pytest.mark.parametrize(
    ("module", "name", "changed"),
    [
        ("methods.simclr", "SimCLR", [True, False]),
        ("losses", "nt_xent", [True, False]),
        ("losses", "normalized_mse", [False, True]),
        ("teachers", "step_towards", [False, True]),
        ("methods.base", "Method", [True, True]),
        ("optim", "Recipe", [True, True]),
        ("schedules", "cosine", [True, True]),
        ("augment.ops", "LUMA", [True, True]),
        ("nn.heads", "mlp", [True, True]),
        ("nn.backbone", "ResNet", [True, True]),
        ("evaluation.linear", "LinearProbe", [True, True]),
        ("evaluation.baselines", "random_scores", [True, True]),
        ("data.orders", "permutation", [True, True]),
        ("data.loader", "BatchLoader", [True, True]),
        ("data.splits", "parts", [True, True]),
        ("training.build", "build_views", [True, True]),
        ("data.readers.digits", "read", [False, False]),  # what it reads is part of the data's own digest
        ("report.tables", "run_table", [False, False]),
    ],
)
def test_code_counts_for_the_methods_that_reach_it(edit: Edit, module: str, name: str, changed: list[bool]) -> None:
    before = [digest(SIMCLR), digest(BYOL)]
    edit(module, name, compute_otherwise)
    after = [digest(SIMCLR), digest(BYOL)]
    assert [old != new for old, new in zip(before, after, strict=True)] == changed


def test_comments_layout_docstrings_annotations_and_sentences_of_errors_do_not_count(edit: Edit) -> None:
    before = digest()
    for module, name in [("losses", "nt_xent"), ("methods.simclr", "SimCLR"), ("optim", "Recipe")]:  # which raises
        edit(module, name, write_otherwise)
    assert digest() == before


def test_a_function_that_is_added_to_a_module_counts_for_nobody_and_what_importing_does_for_all(edit: Edit) -> None:
    before = digest()
    edit("losses", "nt_xent", add_a_function)
    assert digest() == before
    edit("losses", "nt_xent", act_on_import)
    assert digest() != before


def test_code_that_cannot_be_parsed_has_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(code.TEXTS, "ssl_bench.losses", "def broken(:")
    assert digest() is None


def test_every_method_has_a_digest_of_its_own() -> None:
    files = [PACKAGE / "method" / f"{name}.yaml" for name in GROUPS["method"]]
    targets = [yaml.safe_load(file.read_text(encoding="utf-8"))["target"] for file in files]
    found = [digest(target) for target in targets]
    assert None not in found
    assert len(set(found)) == len(targets)


@pytest.mark.parametrize(
    ("of_package", "of_module", "used"),
    [
        ("from mine.losses import loss", "from mine import loss", "loss"),
        ("from .losses import loss", "from . import loss", "loss"),
        ("", "from .losses import loss as renamed", "renamed"),
        ("", "from . import losses", "losses.loss"),
        ("", "import mine.losses", "mine.losses.loss"),
        ("", "import mine.losses as losses", "losses.loss"),
    ],
)
def test_a_method_of_ones_own_counts_with_what_it_reaches_of_its_package(
    of_package: str, of_module: str, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text(f"{of_package}\n")
    (tmp_path / "mine" / "method.py").write_text(f"{of_module}\n\n\nclass Mine:\n    loss = {used}\n")
    (tmp_path / "mine" / "losses.py").write_text("def loss(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:  # of another test
        del sys.modules[name]
    before = digest("mine.method.Mine")
    (tmp_path / "mine" / "losses.py").write_text("def loss(x):\n    return 50 * x\n")
    assert before is not None
    assert digest("mine.method.Mine") not in (before, None)
    assert digest("mine.method.Other") is None
    assert digest("nobody.has.This") is None


def test_without_source_there_is_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "TEXTS", {})
    assert digest() is None


def pythons() -> list[str]:
    """Interpreters on this machine that the package supports, this one included."""
    found = {sys.version_info[:2]: sys.executable}
    for minor in range(10, 20):
        path = shutil.which(f"python3.{minor}")
        if path and (3, minor) not in found and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            found[3, minor] = path
    return list(found.values())


@pytest.mark.parametrize("python", pythons())
def test_the_digest_is_the_same_in_another_place_and_under_another_python(python: str, tmp_path: Path) -> None:
    shutil.copytree(Path(code.__file__).parents[1], tmp_path / "ssl_bench")
    script = f"from ssl_bench.results.code import code_digest; print(code_digest({SIMCLR!r}), code_digest({BYOL!r}))"
    done = subprocess.run(
        [python, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [digest(SIMCLR), digest(BYOL)], done.stderr


@pytest.mark.parametrize(
    ("known", "other", "other_if_unknown"),
    [
        (["a"], False, False),
        (["b"], True, True),
        (["a", "b"], True, True),
        ([None], False, True),
        ([], False, False),
    ],
)
def test_a_run_is_of_other_code_if_a_part_of_it_is(
    known: list[str | None], other: bool, other_if_unknown: bool
) -> None:
    versions = [{"commit": "c"} if one is None else {"digest": one} for one in known]
    assert code.is_other_code(versions, "a") == other
    assert code.is_other_code(versions, "a", unknown=True) == other_if_unknown
    assert not code.is_other_code(versions, None, unknown=True)
