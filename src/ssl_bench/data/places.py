"""Where each dataset's files lie on this machine, and what there is to fetch; nothing is read or downloaded here."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.filesize import decimal

from ssl_bench.data.readers import cifar, fashion_mnist, imagenet100, stl10, tiny_imagenet
from ssl_bench.data.readers.archive import Archive
from ssl_bench.data.readers.downloads import Published
from ssl_bench.errors import UserError

ARCHIVES: Mapping[str, Sequence[Archive]] = {  # any of which is the dataset, the first one downloaded
    "cifar10": cifar.CIFAR10.versions,
    "cifar100": cifar.CIFAR100.versions,
    "stl10": (stl10.ARCHIVE,),
    "tiny_imagenet": (tiny_imagenet.ARCHIVE,),
}
DOWNLOADS: Mapping[str, Sequence[Published]] = {  # by `prepare`; ImageNet has no free mirror
    "fashion_mnist": fashion_mnist.FILES,
    **{name: archives[:1] for name, archives in ARCHIVES.items()},
}
PUBLISHED: dict[str, Published] = {
    file.name: file for files in (fashion_mnist.FILES, *ARCHIVES.values()) for file in files
}
BY_HAND = {
    "imagenet100": "ImageNet (ILSVRC 2012) from https://image-net.org, 155 GB, to {data_dir}/imagenet, packed or not",
    "folder": "your own pictures: dataset.root=<folder>",
}


def found(name: str, data_dir: Path, roots: tuple[str, ...] = ()) -> list[Path]:
    """Files and folders from which the dataset would be read, none where it is not complete.

    ``roots`` are folders named by the user, in place of those in ``data_dir``.
    """
    if roots:
        return [Path(root) for root in roots if os.path.isdir(root)]
    if name == "digits":
        return _digits()
    if name == "fashion_mnist":
        return sorted(fashion_mnist.find(data_dir))
    if name == "imagenet100":
        try:
            return [*imagenet100.sources(imagenet100.find(data_dir)).values()]
        except UserError:
            return []
    # Of a user's own dataset it is not known where its files are.
    path = next(filter(None, (archive.find(data_dir) for archive in ARCHIVES.get(name, ()))), None)
    return [path] if path else []


def _digits() -> list[Path]:
    package = importlib.util.find_spec("sklearn")  # not imported, which takes a second
    places = package.submodule_search_locations if package else None
    file = Path(places[0], "datasets", "data", "digits.csv.gz") if places else None
    return [file] if file and file.exists() else []


def packs(name: str, data_dir: Path) -> list[Path]:
    """Finished packs of the dataset."""
    return sorted((data_dir / "packed").glob(f"{name}-*.safetensors"))


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())  # a link may lead nowhere


def described(paths: list[Path]) -> str:
    """What was found, as a phrase: name, whether packed, size."""
    packed = all(not path.is_dir() and path.suffix in (".gz", ".tgz", ".zip", ".tar", ".safetensors") for path in paths)
    name = paths[0].name if len(paths) == 1 else f"{len(paths)} {'folders' if paths[0].is_dir() else 'files'}"
    form = "packed" if packed else "unpacked"
    return f"{name} in {paths[0].parent} ({form}, {decimal(sum(map(size, paths)))})"


def missing(name: str, data_dir: Path) -> str:
    """What to do where nothing was found."""
    if name in BY_HAND:
        return BY_HAND[name].format(data_dir=data_dir)
    if name not in DOWNLOADS:
        return "comes with scikit-learn: pip install scikit-learn"
    files = DOWNLOADS[name]
    fetch = decimal(sum(file.size for file in files))
    return f"prepare dataset={name} downloads {files[0].name if len(files) == 1 else f'{len(files)} files'}, {fetch}"
