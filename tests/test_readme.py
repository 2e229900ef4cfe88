"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_ten_lines_of_python_train_clbo(tmp_path: Path) -> None:
    (code,) = re.findall(r"<!-- tested -->\n```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line and not line.startswith(("import", "from"))]) <= 10
    check = (
        "\nassert method.teacher_steps == method.student_steps // 2 > 0\n"
        "assert backbone(next(iter(data.test())).images.float()).shape[1] == 64\n"
    )
    done = subprocess.run([sys.executable, "-c", code + check], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_method_and_dataset_tables_name_what_exists() -> None:
    from ssl_bench.config.compose import GROUPS

    for group in ("method", "dataset", "scale"):
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `{group}`")]
        for choice in GROUPS[group]:
            assert f"`{choice}`" in row, f"{group}={choice} is missing in the README"


def test_the_first_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([\w-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
