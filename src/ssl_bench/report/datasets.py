"""Table 1 of Chen, Ji & Yuan 2022, the datasets, out of the catalog; and the table of those on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from ssl_bench.data.catalog import DATASETS
from ssl_bench.data.readers import stl10
from ssl_bench.files import csv_text, write_text

# The paper's five, then those that need no download or next to none.
NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "stl10": "STL-10",
    "imagenet100": "ImageNet-100",
    "tiny_imagenet": "Tiny-ImageNet",
    "fashion_mnist": "Fashion-MNIST",
    "digits": "Digits",
}
PAPERS_OWN = 5


@dataclass(frozen=True, slots=True)
class Row:
    """A dataset; 0 pixels where pictures come in all sizes."""

    dataset: str  # the word on the command line
    name: str
    in_paper: bool
    classes: int
    train: int  # labelled
    unlabelled: int
    test: int
    channels: int
    height: int
    width: int
    licence: str
    source: str

    @property
    def size(self) -> str:
        """Channels × pixels."""
        return f"{self.channels} × " + (f"{self.height} × {self.width}" if self.height else "all sizes")

    @property
    def images(self) -> str:
        """Images to train on."""
        return f"{self.train:,}" + (f" + {self.unlabelled:,} unlabelled" if self.unlabelled else "")


def table1() -> list[Row]:
    """One row per published dataset; all numbers are the catalog's."""
    rows = []
    for number, (word, name) in enumerate(NAMES.items()):
        entry = DATASETS[word]
        unlabelled = stl10.COUNTS["unlabeled"] if word == "stl10" else 0
        images = entry.classes, entry.train - unlabelled, unlabelled, entry.test
        pixels = entry.channels, entry.height, entry.width
        rows.append(Row(word, name, number < PAPERS_OWN, *images, *pixels, entry.licence, entry.source))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| dataset | classes | train | test | channels × pixels | licence |", "|---|---:|---:|---:|---|---|"]
    for row in rows:
        name = row.name if row.in_paper else f"{row.name} (added here)"
        lines.append(f"| {name} | {row.classes} | {row.images} | {row.test:,} | {row.size} | {row.licence} |")
    return "\n".join(lines) + "\n"


def latex(rows: Sequence[Row]) -> str:
    """A tabular with booktabs' rules."""
    lines = [r"\begin{tabular}{lrrrl}", r"\toprule", r"Dataset & Classes & Train & Test & Size \\", r"\midrule"]
    for row, last in zip(rows, [*rows[1:], None], strict=True):
        size = row.size.replace(" × ", r" $\times$ ")
        lines.append(rf"{row.name} & {row.classes} & {row.images} & {row.test:,} & {size} \\")
        if last is not None and row.in_paper and not last.in_paper:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def files() -> dict[str, str]:
    """The files of ``experiments/table1`` by name, beside its README."""
    rows = table1()
    return {
        "results.csv": csv_text([field.name for field in fields(Row)], map(astuple, rows)),
        "table.md": markdown(rows),
        "table.tex": latex(rows),
    }


def write(folder: Path) -> None:
    for name, text in files().items():
        write_text(folder / name, text)
