"""Where the files of conf/ are: in the package, and in folders of users' own methods, datasets and experiments.

A user's folder holds ``conf/``, laid out as the package's is, and Python modules beside it. ``SSL_BENCH_PATH`` names
such folders, with ``:`` between them (``;`` on Windows). An installed package adds its own by an entry point in the
group ``ssl_bench`` whose value is the package; its ``conf/`` is then a folder of the package.
"""

from __future__ import annotations

import functools
import importlib.resources
import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from ssl_bench.errors import UserError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where PyYAML has it
VARIABLE = "SSL_BENCH_PATH"
# Of a method's file, the first of a backbone's, too: values for options of any group, not options themselves.
BLOCKS = ("sets", "original", "check")
# Of a method's file: what its class refuses to do without, for those who ask before it is imported, and its look.
STATED = ("needs", "shown")
AUTO = "auto"  # of a method's file: the functions that give the values of options that are set to auto
SCALES = "scales"  # of any file: values of its options by scale, in place of those above
PACKAGE = Path(str(importlib.resources.files("ssl_bench.conf")))


def _folders() -> Iterator[tuple[Path, str]]:
    """Folders that hold a ``conf/`` of their own, and who names them."""
    for name in os.environ.get(VARIABLE, "").split(os.pathsep):
        if name:
            folder = Path(name).absolute()
            if str(folder) not in sys.path:  # its modules are not installed
                sys.path.append(str(folder))
            yield folder, f"{VARIABLE}={name}"
    for entry in entry_points(group="ssl_bench"):
        package = importlib.util.find_spec(entry.value)
        for place in (package and package.submodule_search_locations) or ():
            yield Path(place), f"the package {entry.value}"


def _own() -> tuple[Path, ...]:
    """The users' folders ``conf/``; their modules can be imported from now on."""
    found: list[Path] = []
    for folder, who in _folders():
        conf = folder / "conf"
        if not conf.is_dir():
            raise UserError(f"{who}: {folder} has no folder conf, which is to hold method/, dataset/ and the like.")
        _require_fit(conf, [PACKAGE, *found], who)
        found.append(conf)
    return tuple(found)


def _require_fit(conf: Path, others: list[Path], who: str) -> None:
    """UserError where a file stands in no group, or has a name that an earlier ``conf/`` has given."""
    groups = {entry.name for entry in PACKAGE.iterdir() if entry.is_dir() and not entry.name.startswith("_")}
    for file in sorted([*conf.rglob("*.yaml"), *conf.rglob("*.yml")]):
        name = file.relative_to(conf)
        if file.suffix != ".yaml":
            raise UserError(f"{who}: {file} is not read: rename it to {file.with_suffix('.yaml').name}.")
        if len(name.parts) != 2 or name.parts[0] not in groups:
            raise UserError(f"{who}: {file} is in no group: put it into one of conf/{{{','.join(sorted(groups))}}}.")
        if any(other.joinpath(*name.parts).is_file() for other in others):
            raise UserError(f"{who}: {file} has the name of a file that is there already: give it another one.")
        _require_shape(file)


def _require_shape(file: Path) -> None:
    """UserError where a file of conf/ is no mapping, or a part of it that the package reads is of another kind."""
    try:
        found = yaml.load(file.read_text(encoding="utf-8"), LOADER)
    except UnicodeDecodeError:
        raise UserError(f"{file} is no text in UTF-8: save it as that.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(not_yaml(str(file), error)) from None

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise UserError(f"{file}: {what}.")

    require(isinstance(found, dict), "it is to be a mapping, as in name: value")
    entries = found.get("defaults", [])
    named = isinstance(entries, list) and all(isinstance(one, (str, dict)) for one in entries)
    require(named and file.stem not in entries, "defaults is to be a list of other files, as in [digits, _self_]")
    for block in (*BLOCKS, *STATED, AUTO, SCALES):
        content = found.get(block) or {}
        require(isinstance(content, dict), f"{block} is to be a mapping, as in {block}: {{key: value}}")
        for key, value in content.items() if block in (AUTO, SCALES) else ():
            require(isinstance(value, dict), f"{block}, {key} is to be a mapping, as in {key}: {{key: value}}")
            named = block != AUTO or isinstance(value.get("target"), str)
            require(named, f"{block}, {key} has no target, as in target: my_module.my_function")


def not_yaml(file: str, error: Exception) -> str:
    """The sentence about a file that cannot be read."""
    mark, problem = (
        getattr(error, "problem_mark", None),
        getattr(error, "problem", None) or getattr(error, "reason", error),
    )
    return f"{file}{f', line {mark.line + 1}' if mark else ''} is not YAML: {' '.join(str(problem).split())}."


OWN = _own()
ROOTS = (PACKAGE, *OWN)


def read(name: str) -> str:
    """The text of a file of conf/, such as ``method/clbo.yaml``; the first that is found."""
    found = next((file for root in ROOTS if (file := root.joinpath(name)).is_file()), None)
    if found is None:
        raise UserError(f"conf/{name} does not exist, which defaults of another file name.")
    return found.read_text(encoding="utf-8")


@functools.cache
def texts_of_own() -> tuple[str, ...]:
    """The texts of all files that users have added to conf/."""
    return tuple(file.read_text(encoding="utf-8") for root in OWN for file in sorted(root.rglob("*.yaml")))


def load(name: str) -> dict[str, Any]:
    """The content of a file of conf/."""
    return yaml.load(read(name), LOADER) or {}


def names(group: str) -> list[str]:
    """What a group offers, in alphabetical order."""
    folders = [folder for root in ROOTS if (folder := root.joinpath(group)).is_dir()]
    files = [file.name for folder in folders for file in folder.iterdir()]
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))
