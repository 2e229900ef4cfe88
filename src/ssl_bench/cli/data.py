"""python -m ssl_bench data: see ``--help``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench.conditions import require_root
from ssl_bench.config.compose import compose
from ssl_bench.config.options import GROUPS, near_or_all, options_in, read_settings, require_known, settings_text
from ssl_bench.config.schema import Config
from ssl_bench.entry import answer
from ssl_bench.errors import UserError

if TYPE_CHECKING:  # imported where needed: a wrong word is answered before torch is there
    from ssl_bench.data.images import Images

OPTIONS = "data.yaml"
MOST_ROWS = 20  # of a table of classes; of more, the smallest and the largest are named

Settings = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the words, then do what the first one says; 0 if all is well, 1 if `verify` finds fault, 2 for an error."""

    def work(words: list[str]) -> int:
        command, config, settings = read(words)
        return COMMANDS[command][0](config, settings)

    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    return answer(words, help_text, work, interrupted="interrupted; the same command resumes.")


def read(words: Sequence[str]) -> tuple[str, Config, Settings]:
    """The command, the configuration that the words give, and the options of this program alone."""
    command, *rest = words
    if "=" in command:
        raise UserError(f"{command} needs a command before it: one of {', '.join(COMMANDS)}.")
    if command not in COMMANDS:
        raise UserError(f"command {command} is unknown{near_or_all(command, COMMANDS)}")
    own = [word for word in rest if word.partition("=")[0] in options_in(OPTIONS)]
    others = [word for word in rest if word not in own]
    require_known(others, options_in(OPTIONS))
    config = compose(others)
    if command != "list":
        require_root(config.dataset.name, config.dataset.options.get("root", ""))
    return command, config, read_settings(OPTIONS, own)


def help_text() -> str:
    """Usage, commands, options."""
    lines = ["python -m ssl_bench data command [key=value ...]", "", "Commands:"]
    lines += [f"  {name:<10}{meaning}" for name, (_, meaning) in COMMANDS.items()]
    lines += [
        "",
        "The words are those of python -m ssl_bench, such as dataset=, data_dir=, dataset.root=, augment= and scale=;",
        "python -m ssl_bench --help lists them. In addition:",
    ]
    return "\n".join([*lines, *settings_text(OPTIONS)])


# -- list -----------------------------------------------------------------------------------------


def list_datasets(config: Config, settings: Settings) -> int:
    """Every dataset, and what of it is on disk."""
    from rich.table import Table

    from ssl_bench.data import catalog, places

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
                shown = catalog.chosen(config.dataset.as_dict())
            except UserError as error:  # of this one; the others can be listed
                notes.append(f"folder: {error}")
        said = [places.described(files) if files else places.missing(entry.name, data_dir)]
        said += [f"+ {places.described([pack])}" for pack in places.packs(entry.name, data_dir)]
        sides = f"{entry.height} × {entry.width}" if entry.height else "all sizes"
        counts = [f"{count:,}" if count else "–" for count in (shown.train, shown.test, shown.classes)]
        table.add_row(entry.name, "✓" if files else "–", *counts, sides)
        notes.append(f"{entry.name}: {'; '.join(said)}. Licence: {entry.licence}.")
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


# -- prepare, pack, verify ------------------------------------------------------------------------


def prepare(config: Config, settings: Settings) -> int:
    """Fetch what is missing, read it once, and say what it is."""
    from ssl_bench.data import catalog, places
    from ssl_bench.data.remarks import remarks

    dataset, data_dir = catalog.chosen(config.dataset.as_dict()), Path(config.data_dir)
    splits = catalog.load(dataset, data_dir)
    console = _console()
    files = places.found(dataset.name, data_dir, _roots(config))
    console.print(f"{dataset.name} is there: {places.described(files)}." if files else f"{dataset.name} is there.")
    for split, images in splits.items():
        channels, height, width = images.images.shape[1:]
        console.print(f"{split}: {len(images):,} images of {channels} × {height} × {width}")
    for sentence in remarks(dataset, splits).sentences:
        console.print(f"warning: {sentence}")
    for line in lines_of_left_out([name for images in splits.values() for name in images.skipped]):
        console.print(line)
    for line in class_counts(splits, dataset.class_names):
        console.print(line)
    return 0


def lines_of_left_out(names: Sequence[str]) -> Iterator[str]:
    """A line for every picture that could not be read, up to MOST_ROWS."""
    for name in names[:MOST_ROWS]:
        yield f"left out: {name}"
    if len(names) > MOST_ROWS:
        yield f"left out: {len(names) - MOST_ROWS:,} more"


def class_counts(splits: dict[str, Images], names: Sequence[str]) -> Iterator[Any]:
    """A table of images per class and split; of many classes, a line per split."""
    from rich.table import Table

    counts = {
        split: images.labels[images.labels >= 0].bincount(minlength=len(names)) for split, images in splits.items()
    }
    if not names:
        return
    if len(names) <= MOST_ROWS:
        table = Table("class", "name")
        for split in splits:
            table.add_column(split, justify="right")
        for number, name in enumerate(names):
            table.add_row(str(number), name, *(f"{int(counts[split][number]):,}" for split in splits))
        yield table
    for split, images in splits.items():
        unlabelled = len(images) - int(counts[split].sum())
        if unlabelled:
            yield f"{split}: {unlabelled:,} images without a label"
        if len(names) > MOST_ROWS:
            low, high = int(counts[split].argmin()), int(counts[split].argmax())
            ends = f"{int(counts[split][low]):,} ({names[low]}) to {int(counts[split][high]):,} ({names[high]})"
            same = counts[split][low] == counts[split][high]
            yield f"{split}: {int(counts[split][low]) if same else ends} images in each of {len(names)} classes"


def pack(config: Config, settings: Settings) -> int:
    """Pack a dataset of single pictures into one file."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ssl_bench.data import catalog

    folder, console = catalog.chosen_folder(config.dataset.as_dict()), _console()
    if folder is None:
        console.print(f"{config.dataset.name} always fits into memory: nothing is to be packed.")
        return 0
    dataset = catalog.chosen(config.dataset.as_dict())
    packed = importlib.import_module("ssl_bench.data.packed")
    columns = (TextColumn("packing {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    worked = False
    with Progress(*columns, console=_console(stderr=True)) as bar:
        task = bar.add_task(dataset.name, total=None, visible=False)

        def progress(done: int, total: int) -> None:
            nonlocal worked
            worked = True
            bar.update(task, completed=done, total=total, visible=True)

        path: Path = packed.pack(dataset, folder, Path(config.data_dir), progress=progress)
    console.print(f"{path} {'is packed' if worked else 'is there already'}.")
    for line in lines_of_left_out(packed.skipped(path)):
        console.print(line)
    return 0


def verify(config: Config, settings: Settings) -> int:
    """Read everything again and compare it with what is known; 1 if something is wrong."""
    from ssl_bench.data import catalog, packed, places
    from ssl_bench.data.verify import findings

    dataset, data_dir = catalog.chosen(config.dataset.as_dict()), Path(config.data_dir)
    files = places.found(dataset.name, data_dir, _roots(config))
    absent = [root for root in _roots(config) if not Path(root).is_dir()]
    if absent:
        raise UserError(f"{absent[0]} does not exist: give another dataset.root or dataset.test_root.")
    if not files and dataset.name in places.LOOK:
        remedy = places.missing(dataset.name, data_dir)
        raise UserError(f"There is no {dataset.name} for data_dir={data_dir} to verify: {remedy}.")
    folder, wrong = catalog.chosen_folder(config.dataset.as_dict()), 0
    pack = packed.finished(dataset, folder, data_dir) if folder else None
    for finding in findings(dataset, data_dir, files, pack):
        print(finding, flush=True)
        wrong += finding.holds is False
    print(f"{dataset.name}: {f'{wrong} of these are wrong' if wrong else 'all is right'}.")
    return 1 if wrong else 0


# -- show -----------------------------------------------------------------------------------------


def show(config: Config, settings: Settings) -> int:
    """Draw images and the views that training will draw of them."""
    from ssl_bench.augment.views import CleanView
    from ssl_bench.data.looks import batches_of, chosen_images, clean_view, pixels
    from ssl_bench.report.contact_sheet import Row, contact_sheet, in_words
    from ssl_bench.training.build import build_data, build_views, clean_arguments

    path = Path(settings["out"] or Path(config.runs_dir, f"show-{config.dataset.name}.png"))
    if path.suffix != ".png":
        raise UserError(f"out={path} is no picture's name: end it in .png.")
    data = build_data(config)
    dataset, views = data.dataset, build_views(config, data.dataset)
    clean = CleanView(**clean_arguments(config, dataset))
    loader = data.train_dataloader()
    looks = -(-settings["views"] // views.count)
    rows = []
    for number in chosen_images(loader, settings["images"]):
        seen = [one for one, _ in zip(batches_of(loader, number), range(looks), strict=False)]
        label = int(seen[0].labels)
        rows.append(
            Row(
                clean=pixels(clean_view(clean, seen[0]), clean),
                name=dataset.class_names[label] if label >= 0 else "",
                looks=[[pixels(view, views) for view in views(one)] for one in seen],
            )
        )
    groups = {group: views.groups.count(group) for group in views.groups}
    contact_sheet(
        path,
        rows,
        title=f"{dataset.name} as {config.method.name} sees it (scale={config.scale.name})",
        lines=[
            *(
                f"{count} view{'s' if count > 1 else ''} of {group.size} × {group.size} pixels: "
                f"{in_words(group, dataset.channels)}."
                for group, count in groups.items()
            ),
            "First column: the image as evaluation sees it. Then the views of the first "
            f"{f'{looks} times' if looks > 1 else 'time'} that training looks at it, with seed={config.seed}.",
        ],
    )
    _console().print(f"{path} shows {len(rows)} images and {sum(map(len, rows[0].looks))} views of each.")
    return 0


# -- table ----------------------------------------------------------------------------------------


def table(config: Config, settings: Settings) -> int:
    """Table 1, printed or written."""
    from ssl_bench.report import datasets

    if settings["out"]:
        datasets.write(Path(settings["out"]))
        print(f"{settings['out']} holds {', '.join(datasets.files())}.")
    else:
        print(datasets.markdown(datasets.table1()), end="")
    return 0


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False)  # a folder may be called [red]


COMMANDS: dict[str, tuple[Callable[[Config, Settings], int], str]] = {
    "list": (list_datasets, "what there is, and what of it is on disk"),
    "prepare": (prepare, "download a dataset if need be, read it once, say what was found"),
    "pack": (pack, "pack a folder of pictures, or ImageNet-100, into one file that need not fit into memory"),
    "verify": (verify, "read a dataset again and check all that is known of it; status 1 if something is wrong"),
    "show": (show, "draw images and their views as training draws them, into a picture"),
    "table": (table, "the table of datasets, out of the catalog, as Markdown, CSV and LaTeX"),
}
