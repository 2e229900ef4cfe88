"""Datasets as a user sees them: what is on disk, fetched, packed into a file, verified."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ssl_bench.config.options import GROUPS
from ssl_bench.config.schema import Config
from ssl_bench.data import catalog, packed, places
from ssl_bench.data.image_warnings import image_warnings
from ssl_bench.data.images import Images
from ssl_bench.data.verify import findings, labels
from ssl_bench.errors import UserError

MOST_ROWS = 20  # of a table of classes, and of names


def list_datasets(config: Config) -> int:
    """Every dataset, and what of it is on disk."""
    data_dir = Path(config.data_dir)
    table, notes = Table(title=f"datasets, looked for in {data_dir}"), []
    for name in ("dataset", "there", "train", "test", "classes", "pixels"):
        table.add_column(name, justify="right" if name in ("train", "test", "classes") else "left", no_wrap=True)
    for entry in catalog.DATASETS.values():
        chosen = entry.name == config.dataset.name
        shown = entry
        try:
            files = places.found(entry.name, data_dir, _roots(config) if chosen else ())
        except UserError as error:
            files = []
            notes.append(f"{entry.name}: {error}")
        if chosen and files and entry.name == "folder":
            try:
                shown = catalog.chosen(config.dataset)
            except UserError as error:  # of this one; the others can be listed
                notes.append(f"folder: {error}")
        notes_of_one = [places.described(files) if files else places.missing(entry.name, data_dir)]
        notes_of_one += [f"+ {places.described([pack])}" for pack in places.packs(entry.name, data_dir)]
        sides = f"{entry.height} × {entry.width}" if entry.height else "all sizes"
        counts = [f"{count:,}" if count else "–" for count in (shown.train, shown.test, shown.classes)]
        table.add_row(entry.name, "✓" if files else "–", *counts, sides)
        notes.append(f"{entry.name}: {'; '.join(notes_of_one)}. Licence: {entry.licence}.")
    own = [name for name in GROUPS["dataset"] if name not in catalog.DATASETS]
    if own:
        notes.append(f"Of your own: {', '.join(own)}.")
    console = _console()
    for part in (table, *notes):
        console.print(part, soft_wrap=part is not table)
    return 0


def _roots(config: Config) -> tuple[str, ...]:
    """Folders that the user names in place of those in ``data_dir``."""
    named = (config.dataset.options.get(key) for key in ("root", "test_root"))
    return tuple(root for root in named if root)


def prepare(config: Config) -> int:
    """Fetch what is missing, read it once, and show what it is."""
    dataset, data_dir = catalog.chosen(config.dataset), Path(config.data_dir)
    splits = catalog.load(dataset, data_dir)
    console = _console()
    files = places.found(dataset.name, data_dir, _roots(config))
    console.print(f"{dataset.name} is there: {places.described(files)}." if files else f"{dataset.name} is there.")
    for split, images in splits.items():
        channels, height, width = images.images.shape[1:]
        console.print(f"{split}: {len(images):,} images of {channels} × {height} × {width}")
    for sentence in image_warnings(dataset, splits).sentences:
        console.print(f"warning: {sentence}")
    for line in lines_of_left_out([name for images in splits.values() for name in images.skipped]):
        console.print(line)
    if 0 < dataset.classes <= MOST_ROWS:
        console.print(class_table(splits, dataset.class_names))
    for split, images in splits.items():
        for finding in labels(dataset, split, images.labels):
            console.print(finding.text)
    return 0


def lines_of_left_out(names: Sequence[str]) -> Iterator[str]:
    """A line for every picture that could not be read, up to MOST_ROWS."""
    for name in names[:MOST_ROWS]:
        yield f"left out: {name}"
    if len(names) > MOST_ROWS:
        yield f"left out: {len(names) - MOST_ROWS:,} more"


def class_table(splits: dict[str, Images], names: Sequence[str]) -> Table:
    """Images per class and split."""
    table = Table("class", "name")
    for split in splits:
        table.add_column(split, justify="right")
    known = [images.labels[images.labels >= 0] for images in splits.values()]
    counts = torch.stack(
        [labels.bincount(minlength=len(names))[: len(names)] for labels in known], 1
    )  # [classes, splits]
    for number, (name, row) in enumerate(zip(names, counts.tolist(), strict=True)):
        table.add_row(str(number), name, *(f"{count:,}" for count in row))
    return table


def pack(config: Config) -> int:
    """Pack a dataset of single pictures into one file."""
    dataset, console = catalog.chosen(config.dataset), _console()
    if dataset.pictures is None:
        console.print(f"{dataset.name} always fits into memory: nothing is to be packed.")
        return 0
    columns = (TextColumn("packing {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    worked = False
    with Progress(*columns, console=_console(stderr=True)) as bar:
        task = bar.add_task(dataset.name, total=None, visible=False)

        def progress(done: int, total: int) -> None:
            nonlocal worked
            worked = True
            bar.update(task, completed=done, total=total, visible=True)

        path: Path = packed.pack(dataset, Path(config.data_dir), progress=progress)
    console.print(f"{path} {'is packed' if worked else 'is there already'}.")
    for line in lines_of_left_out(packed.skipped(path)):
        console.print(line)
    return 0


def verify(config: Config) -> int:
    """Read everything again and compare it with what is known; 1 if something is wrong."""
    dataset, data_dir = catalog.chosen(config.dataset), Path(config.data_dir)
    files = places.found(dataset.name, data_dir, _roots(config))
    absent = [root for root in _roots(config) if not Path(root).is_dir()]
    if absent:
        raise UserError(f"{absent[0]} does not exist: give another dataset.root or dataset.test_root.")
    if not files and dataset.name in catalog.DATASETS:
        remedy = places.missing(dataset.name, data_dir)
        raise UserError(f"There is no {dataset.name} for data_dir={data_dir} to verify: {remedy}.")
    wrong = 0
    for finding in findings(dataset, data_dir, files, packed.finished(dataset, data_dir)):
        print(finding, flush=True)
        wrong += finding.holds is False
    print(f"{dataset.name}: {f'{wrong} of these are wrong' if wrong else 'all is right'}.")
    return 1 if wrong else 0


def _console(stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, markup=False)  # a folder may be called [red]


COMMANDS: dict[str, Callable[[Config], int]] = {
    "list": list_datasets,
    "prepare": prepare,
    "pack": pack,
    "verify": verify,
}
