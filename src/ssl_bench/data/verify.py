"""Is what lies on disk the dataset that the catalog describes? One finding after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssl_bench.data import catalog, pack_file, places
from ssl_bench.data.catalog import DATASETS, Dataset
from ssl_bench.data.images import Images, repeats
from ssl_bench.data.readers.downloads import md5_of
from ssl_bench.data.readers.fashion_mnist import DEBIAN
from ssl_bench.errors import UserError

TOLERANCE = 0.001  # of channel means and deviations in 0–1: a quarter of a gray level, more than published digits round
STEP = 1_000  # images whose pixels are counted at a time


@dataclass(frozen=True, slots=True)
class Finding:
    """One line; ``holds`` is None where it is only stated."""

    holds: bool | None
    text: str

    def __str__(self) -> str:
        return f"{ {True: '✓', False: '✗', None: '·'}[self.holds] } {self.text}"


def findings(dataset: Dataset, data_dir: Path, files: Sequence[Path], pack: Path | None = None) -> Iterator[Finding]:
    """Check everything, the quick things first; what cannot be read ends the check.

    files: what `places.found` gave. pack: that the dataset is read from, if it is.
    """
    yield from (Finding(None, note) for note in dataset.notes)
    yield from _archives(() if dataset.of_own_pictures else files)
    yield from _packs(dataset, data_dir, pack)
    try:
        splits = catalog.load(dataset, data_dir)
    except UserError as error:
        yield Finding(False, str(error))
        return
    for split, images in splits.items():
        channels, height, width = images.images.shape[1:]
        shape = f"{split}: {len(images):,} images of {channels} × {height} × {width}"
        # Reading compares the counts of a published dataset; of one's own pictures nothing is known before.
        yield Finding(None, shape) if dataset.of_own_pictures else Finding(True, f"{shape}, as expected")
        if images.skipped:
            broken = f"{len(images.skipped):,} pictures cannot be read, such as {images.skipped[0]}"
            yield Finding(False, f"{split}: {broken}")
        yield from labels(dataset, split, images.labels)
    yield _channels(dataset, splits["train"])
    yield from _identical(dataset, splits)


def _archives(files: Sequence[Path]) -> Iterator[Finding]:
    for path in files:
        published = places.PUBLISHED.get(path.name)
        if published is None or path.is_dir():
            yield Finding(None, f"{path}: no checksum is published for it")
            continue
        try:
            md5 = md5_of(path)
        except OSError as error:
            yield Finding(False, f"{path} cannot be read: {error.strerror}")
            continue
        if md5 == published.md5:
            yield Finding(True, f"{path} has the published MD5 {published.md5}")
        elif path.parent == DEBIAN:
            yield Finding(None, f"{path}: zipped by Debian, which changes the published checksum")
        else:
            yield Finding(
                False,
                f"{path} is not the published file: expected {published.size:,} bytes with MD5 {published.md5}, found "
                f"{path.stat().st_size:,} with {md5}; remove it and prepare the dataset anew",
            )


def _packs(dataset: Dataset, data_dir: Path, own: Path | None) -> Iterator[Finding]:
    for path in places.packs(dataset.name, data_dir):
        if path != own:
            yield Finding(None, f"{path} is not what these pictures are read from, and was not checked")
            continue
        try:
            pack_file.verify(path)
            yield Finding(True, f"{path} is whole: all checksums hold")
        except UserError as error:
            yield Finding(False, str(error))


def labels(dataset: Dataset, split: str, found: Tensor) -> Iterator[Finding]:
    """Labels in range, every class there, classes balanced where they officially are."""
    known = found[found >= 0]
    classes = dataset.classes
    in_range = bool(((found >= -1) & (found < classes)).all())
    yield Finding(in_range, f"{split}: labels lie between 0 and {classes - 1}" if classes else f"{split}: no labels")
    if not (in_range and classes and len(known)):
        return
    counts, names = known.bincount(minlength=classes), dataset.class_names
    unlabelled = f"; {len(found) - len(known):,} images without a label" if len(known) < len(found) else ""
    absent = (counts == 0).nonzero()[:, 0].tolist()
    if absent:
        # Of one's own test pictures a class may be left out.
        holds = None if dataset.of_own_pictures and split == "test" else False
        yield Finding(holds, f"{split}: no image of {len(absent)} of {classes} classes, such as {names[absent[0]]}")
        return
    low, high = int(counts.argmin()), int(counts.argmax())
    if counts[low] == counts[high]:
        yield Finding(True, f"{split}: {int(counts[low]):,} images of each of {classes} classes{unlabelled}")
        return
    spread = f"{int(counts[low]):,} ({names[low]}) to {int(counts[high]):,} ({names[high]}) images"
    if split in dataset.balanced:
        share = f"{len(known) / classes:,.0f}"
        yield Finding(
            False, f"{split}: expected {share} images of each of {classes} classes, found {spread}{unlabelled}"
        )
    else:
        yield Finding(True, f"{split}: {spread} of each of {classes} classes{unlabelled}")


def _channels(dataset: Dataset, train: Images) -> Finding:
    """Mean and standard deviation of each channel of train, beside those of the catalog."""
    means, deviations = channel_statistics(train.images)
    found = _phrase(means, deviations)
    if dataset.pictures is not None:
        return Finding(None, f"train: {found}; its views are normalised by ImageNet's")
    if dataset.train != DATASETS.get(dataset.name, dataset).train:
        return Finding(None, f"train: {found}; the catalog's are those of the whole split")
    differences = [abs(a - b) for a, b in zip([*means, *deviations], [*dataset.mean, *dataset.std], strict=True)]
    if max(differences) <= TOLERANCE:
        return Finding(True, f"train: {found}, as in the catalog within {max(differences):.5f} (allowed {TOLERANCE})")
    expected = _phrase(dataset.mean, dataset.std)
    return Finding(False, f"train: expected {expected} within {TOLERANCE}, found {found}")


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of uint8 ``[M, C, H, W]`` in 0–1, exactly: by counting gray levels."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
    for start in range(0, len(images), STEP):
        part = images[start : start + STEP]
        for channel in range(images.shape[1]):
            counts[channel] += part[:, channel].flatten().bincount(minlength=256)
    shares = counts / counts.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    means = shares @ levels
    deviations = (shares * (levels - means[:, None]).square()).sum(1).sqrt()
    return means.tolist(), deviations.tolist()


def _phrase(means: Sequence[float], deviations: Sequence[float]) -> str:
    means_text, deviations_text = (", ".join(f"{number:.4f}" for number in numbers) for numbers in (means, deviations))
    return f"channel means {means_text} and deviations {deviations_text}"


def _identical(dataset: Dataset, splits: dict[str, Images]) -> Iterator[Finding]:
    """Images twice where they should not be: to be mended in one's own folder, a property of a published dataset."""
    found = repeats(splits["train"], splits["test"])
    fault, mend = (False, "; remove one of each two") if dataset.of_own_pictures else (None, "")
    if found.of_test:
        yield Finding(fault, found.of_test + mend)
    else:
        yield Finding(True, "no test image is in train as well")
    if found.of_train:
        yield Finding(fault, found.of_train + mend)
    elif dataset.classes:
        yield Finding(True, "train: no two classes share an image")
