"""Fashion-MNIST: where its four idx files are found, or how they are fetched."""

from __future__ import annotations

from pathlib import Path

from ssl_bench.data.images import Images
from ssl_bench.data.readers import archive, downloads
from ssl_bench.data.readers.idx import read_pair

CLASSES = 10
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
MD5 = {  # of the gzipped files
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}


def read(data_dir: Path) -> dict[str, Images]:
    """``train`` and ``test``, from ``data_dir``, from Debian's package, or from the internet.

    Raises:
        UserError: the files are nowhere and cannot be fetched, or are damaged.
    """
    files = find(data_dir) or download(data_dir)
    return {split: read_pair(files[images], files[labels], CLASSES) for split, (images, labels) in FILES.items()}


def find(data_dir: Path) -> dict[str, Path] | None:
    """The four files by their names, from the first folder that has them all; None if no folder has."""
    names = [name for pair in FILES.values() for name in pair]
    for folder in (data_dir / "FashionMNIST" / "raw", data_dir / "fashion_mnist", data_dir, DEBIAN):
        found = {
            name: path
            for name in names
            for path in (folder / f"{name}.gz", folder / name)  # the plain file wins: it need not be unzipped
            if archive.is_file(path)
        }
        if len(found) == len(names):
            return found
    return None


def download(data_dir: Path) -> dict[str, Path]:
    """Fetch the files into torchvision's usual place below ``data_dir``.

    Raises:
        UserError: naming every way to get the data.
    """
    place = data_dir / "FashionMNIST" / "raw"
    downloads.download(
        [(f"{URL}{name}.gz", md5) for name, md5 in MD5.items()],
        place,
        missing=(
            f"Fashion-MNIST is not there: put its four idx files into {place}, "
            "or install Debian's package dataset-fashion-mnist, "
            f"or connect to the internet so that they can be downloaded from {URL}"
        ),
    )
    return {name: place / f"{name}.gz" for name in MD5}
