"""What README and docs/ show runs as it stands there, and says what the repository holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from documented import PAGES, ROOT, arguments, blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLES = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
OTHERS = ("make", "pip", "bash", "find", "tensorboard", "npm")  # programs that are not ours


@pytest.mark.slow
def test_every_command_and_every_block_of_python_runs_at_smoke_scale(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "documented.py"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-5000:]


def test_every_command_is_run_or_marked_with_the_reason_why_not() -> None:
    for block in blocks():
        assert block.kind in ("bash", "python", "yaml", "{toctree}", "{eval-rst}"), f"{block.page}: {block.text}"
        for command in block.commands if block.kind == "bash" else []:
            ours = arguments(command) is not None
            assert ours or command.split()[0] in OTHERS, f"{block.page}: {command}"
            assert ours or block.reason, f"{block.page}: state why {command} is not run, by <!-- not run: reason -->"


def test_the_targets_and_extras_that_pages_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE):
            assert re.search(rf"^([\w ]+ )?{target}( [\w ]+)?:", makefile, re.MULTILINE), f"{page.name}: make {target}"
        for extra in re.findall(r"ssl-bench\[(\w+)\]", text):
            assert f"\n{extra} = [" in project, f"{page.name}: {extra}"


def test_the_table_of_options_names_what_exists() -> None:
    from ssl_bench.config.compose import GROUPS

    for group in ("dataset", "scale", "backbone", "trainer", "logger"):
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `{group}`")]
        for choice in GROUPS[group]:
            assert f"`{choice}`" in row, f"{group}={choice} is missing in the README"


def test_the_methods_of_the_table_exist_and_are_those_of_table_3() -> None:
    rows = re.findall(r"^\| `(\w+)` \(", README, re.MULTILINE)
    table3 = yaml.safe_load((ROOT / "conf" / "experiment" / "table3.yaml").read_text(encoding="utf-8"))
    methods = {re.findall(r"method=(\w+)", overrides)[0] for overrides in table3["sweep"]["rows"].values()}
    assert set(rows) == methods - {"supervised"}
    assert all((ROOT / "conf" / "method" / f"{name}.yaml").exists() for name in rows)


def cells(line: str) -> list[str]:
    return [cell.strip().strip("*") for cell in line.strip().strip("|").split("|")]


def test_the_results_are_the_committed_ones() -> None:
    committed = (ROOT / "experiments" / "table3" / "table.md").read_text(encoding="utf-8")
    rows = [line for line in committed.splitlines() if line.startswith("|") and re.search(r"\d", cells(line)[1])]
    shown = [cells(line) for line in README.splitlines() if re.match(r"\| [^|`]+ \| (?:\*\*)?\d", line)]
    assert shown == [cells(line) for line in rows if "knn1" not in line]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_every_key_of_an_experiment_is_documented() -> None:
    for file in (ROOT / "conf" / "experiment").glob("*.yaml"):
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        for block in {"sweep", "show"} & set(found):
            for key in found[block]:
                assert f"`{block}.{key}`" in TABLES, f"{file.name}: {block}.{key} is missing in docs/tables.md"


TEXTS = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"))]


@pytest.mark.parametrize(
    "page", [*TEXTS, *sorted(ROOT.glob("experiments/*/README.md"))], ids=lambda page: page.parent.name
)
def test_links_lead_to_what_is_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"\w+://", link):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if heading:
            assert heading in anchors(target), f"{page.name}: {link}"


def anchors(page: Path) -> set[str]:
    """The headings of a page, as a browser finds them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_drawing_of_the_rooms_has_the_floors_that_imports_keep_to() -> None:
    from test_house import FLOORS

    drawing = (ROOT / "docs" / "rooms.svg").read_text(encoding="utf-8")
    heights = {room: int(y) for y, room in re.findall(r'y="(\d+)"[^>]*monospace">(\w+)<', drawing)}
    drawn: dict[int, set[str]] = {}
    for room, y in heights.items():
        drawn.setdefault(-y, set()).add(room)
    held = [set(floor) - {"__main__"} for floor in FLOORS]
    ground = held[0] | held[1]  # drawn as one
    assert [drawn[y] for y in sorted(drawn)] == [ground, *filter(None, held[2:])], "draw it in docs/rooms.svg"
