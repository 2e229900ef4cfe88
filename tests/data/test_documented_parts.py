"""The documented table of what images are used for states what the rule does to each dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_bench.data import catalog
from ssl_bench.data.catalog import Dataset
from ssl_bench.data.readers import digits, stl10
from ssl_bench.data.splits import Parts, parts

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
FIXED = [name for name in catalog.DATASETS if name not in ("imagenet100", "folder")]


def labels_of(dataset: Dataset) -> Tensor:
    """Labels as often as the official train split has each: all but the digits are balanced."""
    if dataset.name == "digits":
        return digits.read(Path("unused"))["train"].labels
    labelled = stl10.COUNTS["train"] if dataset.name == "stl10" else dataset.train
    labels = torch.full((dataset.train,), -1)
    labels[:labelled] = torch.arange(labelled) % dataset.classes
    return labels


def rule(dataset: Dataset, hold_out_validation: bool) -> Parts:
    return parts(labels_of(dataset), subset_size=None, label_count=None, hold_out_validation=hold_out_validation)


def row(name: str) -> list[str]:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |") and line.count("|") == 10]
    return [cell.strip() for cell in line.split("|")[2:-1]]


@pytest.mark.parametrize("name", FIXED)
def test_the_table_holds_the_catalogs_and_the_rules_numbers(name: str) -> None:
    dataset = catalog.find(name)
    short, paper = rule(dataset, True), rule(dataset, False)
    assert row(name) == [
        str(dataset.classes),
        f"{dataset.channels} × {dataset.height} × {dataset.width}",
        f"{dataset.train:,}",
        f"{len(short.pretraining):,} ({len(paper.pretraining):,})",
        f"{len(short.bank):,} ({len(paper.bank):,})",
        f"{len(short.probe):,}",
        f"{len(short.validation):,}",
        f"{dataset.test:,}",
    ]
    assert torch.equal(short.probe, paper.probe)
    assert torch.equal(short.validation, paper.validation)


@pytest.mark.parametrize("name", FIXED)
def test_parts_are_disjoint_as_the_table_says(name: str) -> None:
    dataset = catalog.find(name)
    for hold_out_validation in (True, False):
        found = rule(dataset, hold_out_validation)
        uses = {part: set(getattr(found, part).tolist()) for part in ("pretraining", "bank", "probe", "validation")}
        assert not uses["probe"] & uses["validation"]
        assert uses["probe"] <= uses["bank"] <= uses["pretraining"]
        if hold_out_validation:
            assert not uses["validation"] & uses["pretraining"]
        assert uses["pretraining"] | uses["validation"] == set(range(dataset.train))
        assert min(labels_of(dataset)[[*uses["bank"], *uses["validation"]]]) >= 0


def test_imagenet100_is_as_many_images_as_the_table_says() -> None:
    dataset = catalog.find("imagenet100")
    cells = row("imagenet100")
    assert [cells[0], cells[2], cells[7]] == [str(dataset.classes), f"{dataset.train:,}", f"{dataset.test:,}"]
