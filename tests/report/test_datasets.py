"""Table 1 is what the catalog and docs/datasets.md state, and what is on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssl_bench.data import catalog, places
from ssl_bench.report import datasets
from ssl_bench.report.datasets import Row, latex, markdown, table1

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "table1"
DATA = Path(os.environ.get("SSL_BENCH_DATA", ROOT / "data"))  # where this machine may keep copies
ROWS = {row.dataset: row for row in table1()}


@pytest.mark.parametrize("name", datasets.files())
def test_the_committed_table_is_what_the_catalog_gives(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == datasets.files()[name], "run make table1"


def test_the_committed_readme_shows_the_table() -> None:
    assert markdown(table1()) in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_papers_five_come_first_and_no_published_dataset_is_left_out() -> None:
    names = [row.dataset for row in table1()]
    assert names[: datasets.PAPERS_OWN] == ["cifar10", "cifar100", "stl10", "imagenet100", "tiny_imagenet"]
    assert [row.in_paper for row in table1()] == [True] * datasets.PAPERS_OWN + [False] * 2
    assert sorted(names) == sorted(set(catalog.DATASETS) - {"folder"})


@pytest.mark.parametrize("name", ROWS)
def test_the_table_holds_the_numbers_of_the_files_on_disk(name: str) -> None:
    if not places.found(name, DATA):
        pytest.skip("no copy")
    row, splits = ROWS[name], catalog.load(name, DATA)
    labelled = {split: int((images.labels >= 0).sum()) for split, images in splits.items()}
    assert labelled == {"train": row.train, "test": row.test}
    assert row.unlabelled == len(splits["train"]) - labelled["train"]
    assert splits["train"].images.shape[1:] == (row.channels, row.height, row.width)
    assert len(splits["train"].labels[splits["train"].labels >= 0].unique()) == row.classes


@pytest.mark.parametrize("name", ROWS)
def test_the_documented_table_has_the_same_numbers(name: str) -> None:
    lines = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"| `{name}` |") and line.count("|") == 10]
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    row = ROWS[name]
    assert [*cells[:3], cells[-1]] == [str(row.classes), row.size, f"{row.train + row.unlabelled:,}", f"{row.test:,}"]


MADE_UP = [
    Row("a", "A", True, 10, 1_000, 0, 200, 3, 32, 24, "MIT, of a kind", "X, Y"),
    Row("b", "B", False, 2, 5, 12_345, 7, 1, 0, 0, "none", 'the "source"'),
]


def test_markdown_and_latex_hold_every_number_in_its_column() -> None:
    assert markdown(MADE_UP).splitlines()[2:] == [
        "| A | 10 | 1,000 | 200 | 3 × 32 × 24 | MIT, of a kind |",
        "| B (added here) | 2 | 5 + 12,345 unlabelled | 7 | 1 × all sizes | none |",
    ]
    assert latex(MADE_UP).splitlines()[3:] == [
        r"\midrule",
        r"A & 10 & 1,000 & 200 & 3 $\times$ 32 $\times$ 24 \\",
        r"\midrule",
        r"B & 2 & 5 + 12,345 unlabelled & 7 & 1 $\times$ all sizes \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_writing_fills_a_folder_with_the_files(tmp_path: Path) -> None:
    datasets.write(tmp_path / "table1")
    assert {file.name: file.read_text(encoding="utf-8") for file in (tmp_path / "table1").iterdir()} == datasets.files()
