"""The house rules: who may import whom, and what may stand where."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ssl_bench"
FILES = sorted(SOURCE.rglob("*.py"))
CONF = ROOT / "conf"

# From the ground up. A room imports itself and the floors below its own; the package's own __init__ imports lazily.
FLOORS = (
    ("errors",),
    ("commands", "entry", "files", "machine", "conditions"),
    ("devices",),
    ("schedules", "distributed", "batch"),
    ("config",),
    ("augment", "teachers", "evaluation", "losses", "nn", "optim"),
    ("methods", "data", "results"),
    ("callbacks",),  # they read methods and write results
    ("report",),
    ("training",),
    ("sweep", "encoders"),  # it starts runs of several devices, too
    ("plan", "page"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(file: Path) -> str:
    """The first folder or module under the package; a room's own __main__ is an entry point."""
    return file.stem if file.stem == "__main__" else file.relative_to(SOURCE).with_suffix("").parts[0]


@functools.cache
def imports(file: Path) -> list[str]:
    """Dotted names of all that a file imports, at its top or within functions."""
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the room"
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return found


def imported_rooms(file: Path) -> set[str]:
    names = {name.split(".")[1] for name in imports(file) if name.startswith("ssl_bench.")}
    return names - {"__version__"}


def files_importing(*packages: str) -> set[str]:
    return {
        file.relative_to(SOURCE).as_posix()
        for file in FILES
        if any(name == package or name.startswith(f"{package}.") for name in imports(file) for package in packages)
    }


def ids(file: Path) -> str:
    return file.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("file", [file for file in FILES if file != SOURCE / "__init__.py"], ids=ids)
def test_imports_point_down_only(file: Path) -> None:
    room = room_of(file)
    assert room in FLOOR, f"give {room} a floor"
    upwards = {other for other in imported_rooms(file) - {room} if FLOOR[other] >= FLOOR[room]}
    assert not upwards, f"{file} imports {upwards}"


def imported_at_once(file: Path) -> set[str]:
    """Modules of the package that a file imports when it is imported itself: not within functions, not for types."""

    def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for statement in body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
                continue
            yield statement
            for field in ("body", "orelse", "finalbody"):
                yield from statements(getattr(statement, field, []))

    found = set()
    for statement in statements(ast.parse(file.read_text(encoding="utf-8")).body):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            found |= {str(statement.module), *(f"{statement.module}.{alias.name}" for alias in statement.names)}
    return found


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_no_modules_import_each_other_in_a_circle_within_rooms_too() -> None:
    modules = {module_of(file): file for file in FILES}
    packages = {module_of(file) for file in FILES if file.name == "__init__.py"}  # they import nothing of their own
    graph = {name: imported_at_once(file) & (modules.keys() - packages) for name, file in modules.items()}
    list(TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_commands_are_on_a_floor_of_their_own() -> None:
    assert files_importing("ssl_bench.cli") <= {"__main__.py"}
    assert [ids(file) for file in FILES if file.name == "__main__.py"] == ["__main__.py"]


def test_only_config_knows_hydra_and_omegaconf() -> None:
    known = ("compose", "composition", "defaults", "multirun", "parse")
    assert files_importing("hydra", "omegaconf") <= {f"config/{name}.py" for name in known}


def test_only_distributed_talks_to_other_processes() -> None:
    assert files_importing("torch.distributed") <= {"distributed.py"}
    spoken = {ids(file) for file in FILES if re.search(r"\btorch\.distributed\b", file.read_text(encoding="utf-8"))}
    assert spoken <= {"distributed.py"}


def test_lightning_is_imported_under_its_old_name_only() -> None:
    assert not files_importing("lightning")


@pytest.mark.parametrize("room", ["losses.py", "evaluation"])
def test_arithmetic_knows_no_lightning(room: str) -> None:
    users = files_importing("pytorch_lightning", "lightning", "lightning_fabric")
    assert not {user for user in users if user.startswith(room)}


@pytest.mark.parametrize("file", sorted((SOURCE / "methods").glob("*.py")), ids=ids)
def test_a_method_knows_no_other_method_no_data_and_no_callback(file: Path) -> None:
    methods = {name.split(".")[2] for name in imports(file) if name.startswith("ssl_bench.methods.")}
    assert methods <= {"base"}
    assert not imported_rooms(file) & {"data", "callbacks"}


def test_no_file_is_named_after_nothing() -> None:
    empty_words = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert not {ids(file) for file in FILES if empty_words & set(re.split(r"[_/.]", ids(file)))}


def numeric_defaults(file: Path) -> Iterator[str]:
    """``Class.name`` of constructor arguments and annotated fields whose default is a number."""

    def is_number(node: ast.expr | None) -> bool:
        if isinstance(node, ast.UnaryOp):
            node = node.operand
        if isinstance(node, (ast.Tuple, ast.List)):
            return any(is_number(item) for item in node.elts)
        return isinstance(node, ast.Constant) and type(node.value) in (int, float)

    for owner in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(owner, ast.ClassDef):
            continue
        dataclass = any("dataclass" in ast.unparse(decorator) for decorator in owner.decorator_list)
        for node in owner.body:
            if dataclass and isinstance(node, ast.AnnAssign) and is_number(node.value):
                yield f"{owner.name}.{ast.unparse(node.target)}"
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                named = node.args.posonlyargs + node.args.args
                pairs = [*zip(reversed(named), reversed(node.args.defaults), strict=False)]
                pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                yield from (f"{owner.name}.{arg.arg}" for arg, value in pairs if is_number(value))


def test_no_constructor_has_hyperparameters_of_its_own() -> None:
    assert not {name for file in FILES for name in numeric_defaults(file)}


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, ssl_bench; print('torch' in sys.modules, 'hydra' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_wheel_holds_every_package() -> None:
    tomllib = pytest.importorskip("tomllib")
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {".".join(file.parent.relative_to(SOURCE.parent).parts) for file in FILES if file.name == "__init__.py"}
    # conf is mapped into the package from the top of the repository.
    assert set(setuptools["packages"]) == packages | {"ssl_bench.conf"}
    assert len(setuptools["packages"]) == len(set(setuptools["packages"]))
    others = {ids(file) for file in SOURCE.rglob("*.*") if file.suffix not in (".py", ".pyc") and file.is_file()}
    others -= {name for name in others if name.startswith("conf/")}
    assert {
        name for pattern in setuptools["package-data"]["ssl_bench"] for name in map(ids, SOURCE.glob(pattern))
    } == others
    assert setuptools["package-dir"]["ssl_bench.conf"] == CONF.name


def test_every_method_of_conf_is_a_class_and_every_method_file_has_a_conf() -> None:
    base = importlib.import_module("ssl_bench.methods.base").Method
    modules = set()
    for file in (CONF / "method").glob("*.yaml"):
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        module, _, name = found["target"].rpartition(".")
        assert found["name"] == file.stem
        assert issubclass(getattr(importlib.import_module(module), name), base)
        modules.add(module.rpartition(".")[2])
    assert modules == {file.stem for file in (SOURCE / "methods").glob("*.py")} - {"__init__", "base"}


def test_every_dataset_of_conf_is_in_the_catalog_and_has_a_recipe_of_views() -> None:
    catalog = importlib.import_module("ssl_bench.data.catalog")
    names = {file.stem for file in (CONF / "dataset").glob("*.yaml")}
    for name in names:
        found = yaml.safe_load((CONF / "dataset" / f"{name}.yaml").read_text(encoding="utf-8"))
        assert found["name"] == name
    assert names == set(catalog.DATASETS)
    assert names <= {file.stem for file in (CONF / "augment").glob("*.yaml")}
