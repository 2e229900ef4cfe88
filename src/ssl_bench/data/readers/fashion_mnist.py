"""Fashion-MNIST: where its four idx files are found, or how they are fetched."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from ssl_bench.data.images import Images
from ssl_bench.data.readers.idx import read_pair
from ssl_bench.errors import UserError

CLASSES = 10
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
ANSWER_SECONDS = 5.0  # how long the server may take to answer at all
STALL_SECONDS = 30.0  # how long a running download may stand still


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
            if os.path.exists(path)  # unlike Path.exists, False where a folder may not be entered
        }
        if len(found) == len(names):
            return found
    return None


def download(data_dir: Path) -> dict[str, Path]:
    """Fetch the files with torchvision into its usual place below ``data_dir``.

    They are fetched beside it and moved when complete, so that neither an interrupted download nor
    another process at the same work leaves a half-written file there.

    Raises:
        UserError: naming every way to get the data.
    """
    from torchvision.datasets import FashionMNIST

    patience = socket.getdefaulttimeout()
    try:
        _wait_for_answer(FashionMNIST.mirrors[-1] + FashionMNIST.resources[0][0])
        socket.setdefaulttimeout(STALL_SECONDS)  # torchvision sets none and would wait for ever
        place = data_dir / "FashionMNIST" / "raw"
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as folder:
            FashionMNIST(folder, download=True)
            for file in Path(folder, "FashionMNIST", "raw").iterdir():
                os.replace(file, place / file.name)
    except (OSError, RuntimeError, HTTPException, EOFError) as error:
        raise UserError(
            f"Fashion-MNIST is not there: put its four idx files into {data_dir / 'FashionMNIST' / 'raw'}, "
            "or install Debian's package dataset-fashion-mnist, "
            f"or connect to the internet so that torchvision can download them (it failed: {_brief(error)})."
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
    return {name: place / name for pair in FILES.values() for name in pair}


def _wait_for_answer(url: str) -> None:
    """Return when the server answers; raise OSError if it does not in time.

    A thread, because a name look-up obeys no time limit.
    """
    outcome: list[OSError | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER_SECONDS).close()
            outcome.append(None)
        except OSError as error:
            if isinstance(error, HTTPError):
                error.close()  # a refusal is an open answer
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    error = outcome[0] if outcome else TimeoutError("no answer from the server")
    if error is not None:
        raise error


def _brief(error: BaseException) -> str:
    """An error in one line: urllib wraps the reason, torchvision lists its attempts line by line."""
    reason = error.reason if isinstance(error, URLError) else error
    return str(reason).strip().rpartition("\n")[2] or type(error).__name__
