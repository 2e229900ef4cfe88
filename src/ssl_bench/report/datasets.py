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
        rows.append(
            Row(
                dataset=word,
                name=name,
                in_paper=number < PAPERS_OWN,
                classes=entry.classes,
                train=entry.train - unlabelled,
                unlabelled=unlabelled,
                test=entry.test,
                channels=entry.channels,
                height=entry.height,
                width=entry.width,
                licence=entry.licence,
                source=entry.source,
            )
        )
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


def comma_separated(rows: Sequence[Row]) -> str:
    return csv_text([field.name for field in fields(Row)], map(astuple, rows))


README = """\
# Table 1: the datasets

    python -m ssl_bench data table out=experiments/table1      # or: make table1

Claim: these are the five datasets of table 1 of Chen, Ji & Yuan 2022, and the two on which the short scales are tried
out here, as the program uses them: every number is the catalog's (`ssl_bench.data.catalog`). The test split of
Tiny-ImageNet and ImageNet-100 is their official validation split.

{table}
Cost: seconds; nothing is downloaded. `results.csv` has sources besides, `table.tex` the same for LaTeX. `views.png`
shows what training makes of digits:

    python -m ssl_bench data show dataset=digits images=4 out=experiments/table1/views.png

Verdict: the tests hold the files here to be what the catalog gives, and compare the numbers of digits and Fashion-MNIST
with every image on disk. `python -m ssl_bench data verify dataset=…` does so for any dataset once it is there; the
originals of the paper's five have not been on a machine of ours, so their numbers are the published ones.
"""


def files() -> dict[str, str]:
    """The files of ``experiments/table1`` by name."""
    rows = table1()
    return {
        "README.md": README.format(table=markdown(rows)),
        "results.csv": comma_separated(rows),
        "table.md": markdown(rows),
        "table.tex": latex(rows),
    }


def write(folder: Path) -> None:
    for name, text in files().items():
        write_text(folder / name, text)
