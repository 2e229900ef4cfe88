"""Fashion-MNIST (Xiao et al. 2017): four files of MNIST's idx format, plain or gzipped.

An idx file is: two zero bytes, one byte for the type (8: unsigned bytes), one for the number of dimensions, each
dimension as a big-endian uint32, then the values in C order (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import os
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_bench.data.images import Images
from ssl_bench.data.readers.archive import check_labels, intact, misfit
from ssl_bench.data.readers.downloads import Published, download
from ssl_bench.errors import UserError

CLASSES = 10
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FILES = (  # images and labels of train, then of test
    Published(name="train-images-idx3-ubyte.gz", size=26_421_880, md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    Published(name="train-labels-idx1-ubyte.gz", size=29_515, md5="25c81989df183df01b3e8a0aad5dffbe"),
    Published(name="t10k-images-idx3-ubyte.gz", size=4_422_102, md5="bef4ecab320f06d8554ea6380940ec79"),
    Published(name="t10k-labels-idx1-ubyte.gz", size=5_148, md5="bb300cfdad3c16e7a12a480ee83cd310"),
)


def read(data_dir: Path) -> dict[str, Images]:
    """``train`` and ``test``, from ``data_dir``, from Debian's package, or from the internet.

    Raises:
        UserError: the files are nowhere and cannot be fetched, naming every way to get them; or they are damaged.
    """
    files = find(data_dir)
    if not files:
        place = data_dir / "FashionMNIST" / "raw"  # torchvision's
        missing = (
            f"Fashion-MNIST is not there: put its four idx files into {place}, or install Debian's package "
            f"dataset-fashion-mnist, or connect to the internet so that they can be downloaded from {URL}"
        )
        download(FILES, URL, place, missing=missing)
        files = [place / file.name for file in FILES]
    images, labels, test_images, test_labels = files
    return {"train": read_pair(images, labels, CLASSES), "test": read_pair(test_images, test_labels, CLASSES)}


def find(data_dir: Path) -> list[Path]:
    """The four files, gzipped or not, from the first folder that has them all; none if no folder has."""
    for folder in (data_dir / "FashionMNIST" / "raw", data_dir / "fashion_mnist", data_dir, DEBIAN):
        found = {
            file: path
            for file in FILES
            # the plain file wins: it need not be unzipped
            for path in (folder / file.name, folder / file.name.removesuffix(".gz"))
            if os.path.isfile(path)
        }
        if len(found) == len(FILES):
            return list(found.values())
    return []


def read_pair(images_path: Path, labels_path: Path, classes: int) -> Images:
    """Gray images uint8 ``[M, 1, H, W]`` with their labels in 0 … classes - 1.

    Raises:
        UserError: as `read_idx`; or their lengths differ, or a label is out of range.
    """
    images, labels = read_idx(images_path, "images", 3), read_idx(labels_path, "labels", 1)
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} and {labels_path} do not belong together: expected as many labels as images, "
            f"found {len(images)} images and {len(labels)} labels; replace both with intact copies."
        )
    return Images(images.unsqueeze(1), check_labels(labels, 0, classes, labels_path))


def read_idx(path: Path, what: str, dimensions: int) -> Tensor:
    """The unsigned bytes in ``path``, gzipped or not whatever its name, in the shape that the file states.

    Raises:
        UserError: the file cannot be read, does not hold so many dimensions of unsigned bytes, or is shorter or longer
            than its header promises.
    """
    with intact(path):
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    magic, start = bytes([0, 0, 8, dimensions]), 4 + 4 * dimensions
    if content[:4] != magic:
        found = content[:4].hex() or "nothing"
        raise misfit(path, f"it to begin with {magic.hex()}", found, f"is no idx file of {what}")
    shape = struct.unpack(f">{dimensions}I", content[4:start].ljust(start - 4, b"\0"))
    if len(content) - start != math.prod(shape):
        expected = f"a header of {start} bytes and {' × '.join(map(str, shape))} values"
        raise misfit(path, expected, f"{len(content)} bytes", "has the wrong length")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).copy()).view(shape)  # to be written to
