"""A dataset of CIFAR-10's size read from its archive, against the same without any check."""

from __future__ import annotations

import io
import pickle
import tarfile
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.measurement import Measurement, Target, alternate
from benchmarks.synthetic import pictures
from ssl_bench.data.readers import cifar

SECONDS = 3.0  # at most, for the whole of CIFAR-10
VERSION = cifar.CIFAR10.versions[0]
NAMES = VERSION.files


def measure(repeats: int, *, small: bool) -> list[Measurement]:
    """From the archive to images and labels in memory."""
    batch = 100 if small else 10_000
    with TemporaryDirectory() as folder:
        archive = write_archive(Path(folder), batch)
        return [
            Measurement(
                benchmark="loading",
                case=f"{len(NAMES) * batch:,} colour images of 32 px in {archive.stat().st_size / 1e6:.0f} MB .tar.gz",
                ours="read without the power to run code, all lengths, labels and checksums tested",
                baseline="tarfile, pickle.load, numpy.concatenate",
                unit="s",
                pairs=alternate(partial(cifar.read10, archive.parent), partial(unchecked, archive), repeats, turns=1),
                meaning="",
                target=Target(SECONDS, at_least=False, on="value"),
            )
        ]


def write_archive(folder: Path, batch: int) -> Path:
    """An archive of CIFAR-10's python version with ``batch`` images in each of its six files."""
    rows = pictures(len(NAMES) * batch, 3, cifar.SIDE).reshape(-1, cifar.ROW).numpy()
    path = folder / VERSION.name
    with tarfile.open(path, "w:gz", compresslevel=6) as tar:
        for number, name in enumerate(NAMES):
            content = pickle.dumps(
                {
                    b"data": rows[number * batch : (number + 1) * batch].copy(),
                    b"labels": [row % cifar.CIFAR10.classes for row in range(batch)],
                    b"filenames": [f"synthetic_s_{row:06}.png" for row in range(batch)],
                },
                protocol=3,  # the first that writes bytes as they are, as Python 2 did
            )
            member = tarfile.TarInfo(f"{VERSION.folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def unchecked(archive: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images ``[M, 3, 32, 32]`` and labels ``[M]`` of the splits, the file trusted."""
    parts = {}
    with tarfile.open(archive) as tar:
        for name in NAMES:
            stream = tar.extractfile(f"{VERSION.folder}/{name}")
            assert stream is not None
            parts[name] = pickle.load(stream, encoding="bytes")
    return {
        split: (
            np.concatenate([parts[name][b"data"] for name in names]).reshape(-1, 3, cifar.SIDE, cifar.SIDE),
            np.concatenate([parts[name][b"labels"] for name in names]),
        )
        for split, names in (("train", NAMES[:-1]), ("test", NAMES[-1:]))
    }
