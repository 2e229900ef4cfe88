"""Pictures packed once into a mapped file: what packing costs, what it saves, and that memory does not grow with it."""

from __future__ import annotations

import itertools
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.knn import MEMORY, anonymous_memory, growth
from benchmarks.measurement import Measurement, Target, alternate, rates
from benchmarks.synthetic import pictures
from ssl_bench.config.compose import compose
from ssl_bench.data import catalog, packed
from ssl_bench.data.images import Images
from ssl_bench.data.loader import BatchLoader
from ssl_bench.data.orders import permutation
from ssl_bench.data.readers import pictures as readers
from ssl_bench.data.readers.folder import Folder
from ssl_bench.training import build, run
from ssl_bench.training.trainer import build_trainer

WORKERS = 2  # processes that decode on the baselines' side, as many as the machine of the targets has cores
BATCH = 128
STEPS = 20  # of training, while memory is watched


@dataclass(frozen=True)
class Sizes:
    """How many pictures, and how large they are in files and as kept."""

    count: int
    height: int
    width: int
    stored: int
    large: int  # pictures of the larger of two packs, whose memory is compared; the smaller has a tenth


FULL = Sizes(count=2400, height=375, width=500, stored=224, large=28_000)  # 4.2 GB
SMALL = Sizes(count=24, height=30, width=40, stored=8, large=400)


def measure(repeats: int, *, small: bool) -> list[Measurement]:
    """Packing against a bare loop, reading against decoding, a large pack against a small one."""
    sizes = SMALL if small else FULL
    with TemporaryDirectory() as folder:
        root = photographs(Path(folder) / "pictures", sizes)
        found = [_packing(root, sizes, repeats), _reading(root, sizes, repeats)]
        if MEMORY.exists():
            found.append(_memory(Path(folder), sizes))
    return found


def photographs(root: Path, sizes: Sizes) -> Path:
    """JPEGs of smooth blobs with noise."""
    root.mkdir()
    for number, image in enumerate(pictures(16, 3, max(sizes.height, sizes.width)).permute(0, 2, 3, 1).numpy()):
        cut = image[: sizes.height, : sizes.width]
        for copy in range(number, sizes.count, 16):
            Image.fromarray(np.roll(cut, 7 * copy, axis=1)).save(root / f"{copy}.jpg", quality=90)
    return root


def _folder(root: Path, stored: int) -> Folder:
    return Folder(root=str(root), test_root=None, stored=stored, on_error="stop", max_pixels=10**8)


def pack(folder: Folder, data_dir: Path) -> dict[str, Images]:
    """Pack the pictures and open the file."""
    entry = catalog.find("folder", folder)
    packed.pack(entry, data_dir, progress=lambda done, total: None)
    return catalog.load(entry, data_dir)


def _packing(root: Path, sizes: Sizes, repeats: int) -> Measurement:
    folder, paths = _folder(root, sizes.stored), sorted(str(path) for path in root.iterdir())
    data_dir = root.parent / "packing"

    def ours() -> None:
        packed.pack(catalog.find("folder", folder), data_dir, progress=lambda done, total: None)

    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        one = partial(decode, side=sizes.stored)
        pairs = alternate(
            ours,
            lambda: sum(pool.imap_unordered(one, paths, chunksize=8)),
            repeats,
            turns=1,
            before=lambda: shutil.rmtree(data_dir, ignore_errors=True),
        )
    return Measurement(
        benchmark="packing",
        case=f"pack JPEGs of {sizes.width} × {sizes.height} at {sizes.stored} px",
        ours="decoded, resized, hashed, written and made durable",
        baseline=f"decoded and resized by {WORKERS} worker processes, and dropped",
        unit="images/s",
        pairs=rates(pairs, len(paths)),
        meaning="share of the bare loop's speed",
        target=Target(0.9, at_least=True),
    )


def decode(path: str, side: int) -> int:
    """Bytes of the picture as the bare loop has it: by the same calls of PIL."""
    return _decoded(path, side).nbytes


def _decoded(path: str, side: int) -> NDArray[np.uint8]:
    return np.asarray(readers.squashed(Path(path).read_bytes(), side)[0])


class Decoding(Dataset[Tensor]):
    """Pictures decoded and resized whenever they are asked for."""

    def __init__(self, paths: list[str], side: int) -> None:
        self.paths = paths
        self.side = side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        return torch.tensor(_decoded(self.paths[row], self.side)).permute(2, 0, 1)


def _reading(root: Path, sizes: Sizes, repeats: int) -> Measurement:
    images = pack(_folder(root, sizes.stored), root.parent / "reading")["train"]
    size = min(BATCH, len(images))
    epochs = 10  # an epoch is soon over

    def ours() -> None:
        order = partial(permutation, len(images), 0)
        loader = BatchLoader(
            images, torch.arange(len(images)), order, batch_size=size, rank=0, world=1, seed=0, drop_last=True
        )
        for _ in range(epochs):
            for batch in loader:
                assert len(batch) == size

    paths = sorted(str(path) for path in root.iterdir())
    peers = DataLoader(
        Decoding(paths, sizes.stored),
        size,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    pairs = alternate(ours, lambda: sum(len(batch) for batch in peers), repeats, turns=1)
    return Measurement(
        benchmark="packing",
        case=f"shuffled batches of {size} images of {sizes.stored} px",
        ours="from the pack, once it is in the page cache",
        baseline=f"decoded from JPEG by {WORKERS} workers of a DataLoader",
        unit="images/s",
        pairs=[(epochs * mine, theirs) for mine, theirs in rates(pairs, len(paths) // size * size)],
        meaning="times as fast as decoding",
        target=Target(10, at_least=True),
    )


def _memory(folder: Path, sizes: Sizes) -> Measurement:
    large, little = (_megabytes(tiny(folder, count), sizes.stored) for count in (sizes.large, sizes.large // 10))
    gigabytes = sizes.large * 3 * sizes.stored**2 / 1e9
    return Measurement(
        benchmark="packing",
        case=f"anonymous memory of training, {sizes.large:,} images of {sizes.stored} px",
        ours=f"a pack of {gigabytes:.2g} GB",
        baseline=f"a pack of {gigabytes / 10:.2g} GB",
        unit="MB",
        pairs=[(large, little)],
        meaning="",
        target=Target(round(little + 300), at_least=False, on="value"),
    )


def tiny(folder: Path, count: int) -> Path:
    """``count`` names of a few tiny pictures, which are soon packed at any size."""
    root = folder / f"{count} pictures"
    root.mkdir()
    originals = [root / f"{number}.png" for number in range(16)]
    for path, image in zip(originals, pictures(16, 3, 8).permute(0, 2, 3, 1).numpy(), strict=True):
        Image.fromarray(image).save(path)
    for number, path in zip(range(16, count), itertools.cycle(originals), strict=False):
        (root / f"{number}.png").symlink_to(path.name)
    return root


def _megabytes(root: Path, stored: int) -> float:
    data_dir = root.with_name(f"{root.name} packed")
    pack(_folder(root, stored), data_dir)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(training_memory, str(root), str(data_dir), stored).result() / 1e6


class FewSteps(pl.Callback):
    """Ends the epoch after ``STEPS`` steps."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == STEPS


def training_memory(root: str, data_dir: str, stored: int) -> int:
    """Anonymous bytes of this process at most while it trains on packed pictures and looks at every one of them."""
    before = anonymous_memory()
    run.quiet()
    overrides = [f"dataset.stored={stored}", "dataset.max_pixels=100000000", "dataset.memory=0", "batch_size=32"]
    overrides += ["method=simclr", "backbone.width=8", f"dataset.size={min(stored, 64)}"]
    config = compose(["dataset=folder", f"dataset.root={root}", f"data_dir={data_dir}", *overrides])

    def train() -> None:
        method, data = build.build(config)
        trainer = build_trainer(
            [FewSteps()],
            device=torch.device("cpu"),
            devices=1,
            nodes=1,
            precision="32-true",
            epochs=1,
            accumulate=1,
            clip=None,
            share_statistics=True,
            folder=Path(data_dir),
        )
        trainer.fit(method, datamodule=data)
        for batch in data.train_dataloader():
            assert len(batch)

    return before + growth(train)
