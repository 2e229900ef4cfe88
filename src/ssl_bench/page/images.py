"""What networks make of single images: predictions, features in the plane, neighbours, and the views of training.

Runs of runs_dir leave predictions and an encoder, and their configuration states where their images are. Of each row on
each dataset the run with the lowest seed is shown.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from ssl_bench.batch import Batch, Place
from ssl_bench.config.schema import Config
from ssl_bench.data.datamodule import DataModule
from ssl_bench.encoders.of_runs import data_of_run
from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import extract
from ssl_bench.page.runs import typed_config
from ssl_bench.page.script import script
from ssl_bench.report.figures import plane_of
from ssl_bench.report.records import Run
from ssl_bench.results.encoder import encoder_file, read_encoder
from ssl_bench.results.record import MISFITS, misfit
from ssl_bench.results.run_folder import RunFolder
from ssl_bench.training.show import show

Plain = dict[str, Any]
TILE = 64  # pixels of a thumbnail's side at most
ACROSS = 20  # thumbnails side by side in one picture
NEIGHBOURS = 8
VIEWS = 4  # images whose views are shown, and views of each
BATCH = 256
DIGITS = 4  # of a place in the plane
DAMAGED = (*MISFITS, BadZipFile, EOFError, RuntimeError, yaml.YAMLError, zlib.error)  # what a run's damaged files raise


@dataclass
class Seen:
    """What is shown of images, and the files that hold it, by name below data/."""

    files: dict[str, bytes] = field(default_factory=dict)
    runs: dict[str, Plain] = field(default_factory=dict)  # by fingerprint: its dataset's number and what there is
    datasets: list[Plain] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # runs of which nothing could be shown, and why


def seen(runs: Sequence[Run], count: int, out: Path) -> Seen:
    """What ``count`` test images look like to the ``runs``; features that lie in ``out`` are not computed again."""
    found = Seen()
    numbers: dict[str, int] = {}  # of datasets, by the content of their images
    data: dict[str, DataModule] = {}
    for run in _lowest_seeds(runs):
        assert run.entry is not None
        folder, record = RunFolder(run.entry.path.parent), run.entry.record
        try:
            config = typed_config(yaml.safe_load(folder.config.read_text(encoding="utf-8")))
            digest = record.data_digest
            if digest not in numbers:
                data[digest] = data_of_run(config, digest, str(folder.path))
                found.datasets.append(_dataset(found, data[digest], len(found.datasets), count))
                numbers[digest] = len(found.datasets) - 1
            dataset = found.datasets[numbers[digest]]
            there, files = _run(folder, data[digest], dataset["rows"], out)
            _views(found, dataset, config)
            found.runs[record.fingerprint] = {"dataset": numbers[digest]} | there
            found.files |= files
        except (UserError, *DAMAGED) as error:
            found.left_out.append(f"{folder.path}: {error if isinstance(error, UserError) else misfit(error)}")
    return found


def _lowest_seeds(runs: Sequence[Run]) -> list[Run]:
    """One run of each row on each dataset, among those that are no committed records."""
    found: dict[tuple[str, ...], Run] = {}
    for run in sorted(runs, key=lambda run: run.cell.seed):
        if run.entry is not None and not run.entry.committed:
            found.setdefault(
                tuple(override for override in run.cell.overrides if not override.startswith("seed=")), run
            )
    return list(found.values())


def _dataset(found: Seen, data: DataModule, number: int, count: int) -> Plain:
    """Thumbnails of test images that are evenly spaced; their picture is put among the files."""
    test = data.splits["test"]
    rows = np.unique(np.linspace(0, len(test) - 1, count).round().astype(int))
    pixels = test.images[torch.from_numpy(rows)]
    sizes = pixels.new_tensor(pixels.shape[2:], dtype=torch.int64).expand(len(rows), 2)
    if test.sizes is not None:  # of originals, which were squashed to one
        sizes = test.sizes[torch.from_numpy(rows)]
    shown = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
    tiles = [_tile(*one) for one in zip(shown.permute(0, 2, 3, 1).numpy(), sizes.tolist(), strict=True)]
    side = tiles[0].width
    sheet = Image.new("RGB", (side * min(ACROSS, len(tiles)), side * (-(-len(tiles) // ACROSS))))
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (side * (place % ACROSS), side * (place // ACROSS)))
    found.files[f"d{number}.png"] = _png(sheet)
    return {
        "name": data.dataset.name,
        "classes": list(data.dataset.class_names),
        "rows": rows.tolist(),
        "labels": test.labels[torch.from_numpy(rows)].tolist(),
        "picture": f"d{number}.png",
        "side": side,
        "across": ACROSS,
        "views": [],
    }


def _tile(pixels: NDArray[np.uint8], size: Sequence[int]) -> Image.Image:
    """A square thumbnail, ``[H, W, 3]`` in its middle as high and wide as an original of ``size`` is."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    side = min(TILE, max(image.size))
    height, width = (max(1, round(side * length / max(size))) for length in size)
    image = image.resize((width, height))
    tile = Image.new("RGB", (side, side))
    tile.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return tile


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def _views(found: Seen, dataset: Plain, config: Config) -> None:
    """A picture of the views that training draws, once for each set of augmentations."""
    text = json.dumps([config.dataset.name, config.augment.as_dict()], sort_keys=True)
    if any(text == one["key"] for one in dataset["views"]):
        return
    name = f"v{sum(len(one['views']) for one in found.datasets)}.png"
    with tempfile.TemporaryDirectory() as folder:
        show(config, Path(folder, name), images=VIEWS, views=VIEWS)
        found.files[name] = Path(folder, name).read_bytes()
    dataset["views"].append({"key": text, "picture": name, "method": config.method.name})


def _run(folder: RunFolder, data: DataModule, rows: list[int], out: Path) -> tuple[Plain, dict[str, bytes]]:
    """What there is of a run, and its files."""
    files = {}
    there: Plain = {"predictions": folder.predictions.exists(), "features": folder.encoder.exists()}
    name = folder.fingerprint
    if there["predictions"]:
        with folder.predictions.open("rb") as file, np.load(file) as arrays:
            if not np.array_equal(arrays["labels"], data.splits["test"].labels.numpy()):
                raise UserError("its predictions are of other images than those in its data_dir.")
            files[f"p{name}.js"] = script(f"p{name}", {key: _packed(arrays[key]) for key in arrays.files})
    if there["features"]:
        there["file"] = (
            f"s{name}-{len(rows)}-{folder.encoder.stat().st_mtime_ns}"  # of these weights: runs can be made anew
        )
        done = out / "data" / f"{there['file']}.js"
        files[done.name] = done.read_bytes() if done.exists() else script(there["file"], _features(folder, data, rows))
    return there, files


def _packed(values: NDArray[np.int64]) -> str:
    """Classes as two bytes each, the lower one first; 65535 for none."""
    return base64.b64encode(values.astype("<u2").tobytes()).decode()


def _features(folder: RunFolder, data: DataModule, rows: list[int]) -> Plain:
    """Places in the plane of the images in ``rows``, and the nearest of the others by the cosine of features."""
    encoder, _ = read_encoder(encoder_file(folder.path))
    test = data.splits["test"]
    batches = (
        Batch(
            images=test.images[some],
            labels=test.labels[some],
            index=some,
            place=Place(0, 0, 0, 0, len(some)),
            sizes=None if test.sizes is None else test.sizes[some],
        )
        for some in torch.split(torch.tensor(rows), BATCH)
    )
    features = extract(encoder.backbone, encoder.clean, batches, device="cpu").x
    alike = F.normalize(features) @ F.normalize(features).T
    alike.fill_diagonal_(-1)
    near = alike.topk(min(NEIGHBOURS, len(rows) - 1)).indices
    plane = plane_of(features.numpy(), seed=0)
    return {"plane": np.round(plane.astype(float), DIGITS).tolist(), "near": near.tolist()}
