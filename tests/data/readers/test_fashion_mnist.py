from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from server import Server, served
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
    monkeypatch.setattr(fashion_mnist, "URL", "http://127.0.0.1:9/")


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with the four files."""
    content = {f"{name}.gz": gzip.compress(content) for name, content in IDX.items()}
    with served(**content) as state:
        monkeypatch.setattr(fashion_mnist, "URL", state.url)
        files = [replace(file, md5=hashlib.md5(content[file.name]).hexdigest()) for file in fashion_mnist.FILES]
        monkeypatch.setattr(fashion_mnist, "FILES", files)
        yield state


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
    assert found == [folder / name for name in IDX]
    (folder / "t10k-labels-idx1-ubyte").unlink()
    assert fashion_mnist.find(tmp_path / "data") == [package / f"{name}.gz" for name in IDX]


def test_a_missing_dataset_names_every_way_to_get_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(UserError) as caught:
        fashion_mnist.read(tmp_path / "data")
    assert time.perf_counter() - start < 2 * downloads.ANSWER_SECONDS
    sentence = str(caught.value)
    assert str(tmp_path / "data" / "FashionMNIST" / "raw") in sentence
    assert "dataset-fashion-mnist" in sentence
    assert "http://127.0.0.1:9/" in sentence
    assert "Connection refused" in sentence
    assert "\n" not in sentence
    assert files(tmp_path) == []


def test_addresses_and_checksums_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert FashionMNIST.mirrors == [fashion_mnist.URL]
    assert [(file.name, file.md5) for file in fashion_mnist.FILES] == FashionMNIST.resources


def test_a_download_is_kept_where_torchvision_finds_it(mirror: Server, tmp_path: Path) -> None:
    splits = fashion_mnist.read(tmp_path / "data")
    assert splits["train"].labels.tolist() == [7, 8, 9]
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    assert sorted(path.name for path in raw.glob("[!.]*")) == sorted(f"{name}.gz" for name in IDX)
    mirror.files.clear()
    assert fashion_mnist.read(tmp_path / "data")["test"].labels.tolist() == [4]


def test_a_download_that_fails_halfway_resumes_with_what_is_missing(mirror: Server, tmp_path: Path) -> None:
    last = "t10k-labels-idx1-ubyte.gz"
    content = mirror.files[last]
    mirror.files[last] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(UserError, match=r"Fashion-MNIST is not there: .* \(it failed: [^\n]+ MD5 [^\n]+\)\.$"):
        fashion_mnist.read(tmp_path / "data")
    assert last not in {Path(file).name for file in files(tmp_path / "data")}
    mirror.files = {last: content}
    assert fashion_mnist.read(tmp_path / "data")["test"].labels.tolist() == [4]
