from __future__ import annotations

import gc
import gzip
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision.datasets import FashionMNIST

from ssl_bench.data.readers import downloads, fashion_mnist
from ssl_bench.errors import UserError

IDX = {
    "train-images-idx3-ubyte": bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2, *range(12)]),
    "train-labels-idx1-ubyte": bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]),
    "t10k-images-idx3-ubyte": bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, *range(50, 54)]),
    "t10k-labels-idx1-ubyte": bytes([0, 0, 8, 1, 0, 0, 0, 1, 4]),
}


def place(folder: Path, ending: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in IDX.items():
        (folder / f"{name}{ending}").write_bytes(gzip.compress(content) if ending else content)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine may have Debian's package and the internet; the tests have neither."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "usr" / "share")
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A server at work; the folder it serves."""
    folder = place(tmp_path / "served", ".gz")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    sums = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(folder.iterdir())]
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "fashion_mnist", "."])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_files_are_found_in_each_of_their_places(folder: str, ending: str, tmp_path: Path) -> None:
    place(tmp_path / "data" / folder, ending)
    splits = fashion_mnist.read(tmp_path / "data")
    assert splits["train"].images.flatten().tolist() == list(range(12))
    assert splits["train"].labels.tolist() == [7, 8, 9]
    assert splits["test"].images.flatten().tolist() == list(range(50, 54))
    assert splits["test"].labels.tolist() == [4]


def test_the_package_serves_when_data_dir_has_not_all_four_files(tmp_path: Path) -> None:
    package = place(tmp_path / "usr" / "share", ".gz")
    folder = place(tmp_path / "data")
    found = fashion_mnist.find(tmp_path / "data")
    assert found == {name: folder / name for name in IDX}
    (folder / "t10k-labels-idx1-ubyte").unlink()
    assert fashion_mnist.find(tmp_path / "data") == {name: package / f"{name}.gz" for name in IDX}


def test_a_missing_dataset_names_every_way_to_get_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(UserError) as caught:
        fashion_mnist.read(tmp_path / "data")
    assert time.perf_counter() - start < 2 * downloads.ANSWER_SECONDS
    sentence = str(caught.value)
    assert str(tmp_path / "data" / "FashionMNIST" / "raw") in sentence
    assert "dataset-fashion-mnist" in sentence
    assert "torchvision" in sentence
    assert "Connection refused" in sentence
    assert "\n" not in sentence
    assert files(tmp_path) == []


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(downloads, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(UserError, match=r"\(it failed: .*(no answer|timed out).*\)\.$"):
            fashion_mnist.read(tmp_path)


@pytest.mark.usefixtures("mirror")
def test_a_download_is_kept_where_torchvision_keeps_it(tmp_path: Path) -> None:
    splits = fashion_mnist.read(tmp_path / "data")
    assert splits["train"].labels.tolist() == [7, 8, 9]
    assert {Path(file).parent for file in files(tmp_path / "data")} == {Path("FashionMNIST/raw")}
    assert len(FashionMNIST(tmp_path / "data", train=False)) == 1
    assert socket.getdefaulttimeout() is None


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # torchvision leaves the answer 404 open
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_download_that_fails_halfway_leaves_no_file(damage: str, mirror: Path, tmp_path: Path) -> None:
    last = sorted(mirror.iterdir())[-1]
    if damage == "missing":
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"Fashion-MNIST is not there: .* \(it failed: [^\n]+\)\.$"):
        fashion_mnist.read(tmp_path / "data")
    assert files(tmp_path / "data") == []
    assert socket.getdefaulttimeout() is None
    gc.collect()  # the open answer goes here, not in the midst of another test


def test_a_server_without_the_files_is_left_before_anything_is_written(mirror: Path, tmp_path: Path) -> None:
    for path in mirror.iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"\(it failed: (HTTP Error 404: )?File not found\)\.$"):
        fashion_mnist.read(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    gc.collect()  # an open answer would be an error here
