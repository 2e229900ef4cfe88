from __future__ import annotations

import codecs
import gzip
import hashlib
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats import python2_batch, tarred, unpacked
from server import served
from torchvision.datasets import CIFAR10 as TORCHVISION10
from torchvision.datasets import CIFAR100 as TORCHVISION100

from ssl_bench.data.readers import cifar
from ssl_bench.data.readers.archive import Archive, streams
from ssl_bench.data.readers.arrays import read_pickle
from ssl_bench.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
ROWS = PIXELS.reshape(12, 3072)
LABELS = [3, 9, 0, 1, 2, 4, 5, 6, 7, 8, 1, 0]  # ten for training in five batches, two for the test
FINE = [99, 0, 17, 1, 2, 3, 4, 5, 6, 7, 98, 55]
COARSE = [19, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
NAMES10 = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
PAIRS = [slice(2 * pair, 2 * pair + 2) for pair in range(6)]


def binary(rows: np.ndarray, *labels: list[int]) -> bytes:
    """Rows after one byte of each kind of label."""
    return b"".join(bytes(numbers) + row.tobytes() for *numbers, row in zip(*labels, rows, strict=True))


def files(version: str) -> dict[str, bytes]:
    """All of a version's files by path, as its archive holds them."""
    if version == "cifar-10-python":
        found = {
            name: python2_batch(ROWS[two], {"labels": LABELS[two]}) for name, two in zip(NAMES10, PAIRS, strict=True)
        }
        return {f"cifar-10-batches-py/{name}": content for name, content in {**found, "readme.html": b"<p>"}.items()}
    if version == "cifar-10-binary":
        found = {f"{name}.bin": binary(ROWS[two], LABELS[two]) for name, two in zip(NAMES10, PAIRS, strict=True)}
        return {f"cifar-10-batches-bin/{name}": content for name, content in found.items()}
    halves = {"train": slice(0, 10), "test": slice(10, 12)}
    if version == "cifar-100-python":
        labels = {"coarse_labels": COARSE, "fine_labels": FINE}
        found = {
            name: python2_batch(ROWS[half], {key: values[half] for key, values in labels.items()})
            for name, half in halves.items()
        }
        return {f"cifar-100-python/{name}": content for name, content in found.items()}
    found = {f"{name}.bin": binary(ROWS[half], COARSE[half], FINE[half]) for name, half in halves.items()}
    return {f"cifar-100-binary/{name}": content for name, content in found.items()}


VERSIONS = ["cifar-10-python", "cifar-10-binary", "cifar-100-python", "cifar-100-binary"]


def read(version: str, data_dir: Path) -> Any:
    return (cifar.read100 if "100" in version else cifar.read10)(data_dir)


def refusal(version: str, data_dir: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(version, data_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "URL", "http://127.0.0.1:9/")


@pytest.mark.parametrize("place", ["archive", "unpacked", "folder of its own"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gives_the_same_images_in_the_same_order(version: str, place: str, tmp_path: Path) -> None:
    folder = tmp_path / ("cifar100" if "100" in version else "cifar10") if place == "folder of its own" else tmp_path
    folder.mkdir(exist_ok=True)
    if place == "unpacked":
        unpacked(folder, files(version))
    else:
        tarred(folder / f"{version}.tar.gz", files(version))
    splits = read(version, tmp_path)
    labels = FINE if "100" in version else LABELS
    assert np.array_equal(splits["train"].images.numpy(), PIXELS[:10])
    assert np.array_equal(splits["test"].images.numpy(), PIXELS[10:])
    assert splits["train"].labels.tolist() == labels[:10]
    assert splits["test"].labels.tolist() == labels[10:]
    splits["train"].images.add_(1)  # owned, and may be written to


@pytest.mark.parametrize(("version", "peer"), [(VERSIONS[0], TORCHVISION10), (VERSIONS[2], TORCHVISION100)])
def test_torchvision_reads_the_same_from_the_same_files(
    version: str, peer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unpacked(tmp_path, files(version))
    monkeypatch.setattr(peer, "_check_integrity", lambda self: True)
    monkeypatch.setattr(peer, "_load_meta", lambda self: None)
    splits = read(version, tmp_path)
    for split, train in (("train", True), ("test", False)):
        found = peer(tmp_path, train=train)
        assert np.array_equal(splits[split].images.permute(0, 2, 3, 1).numpy(), found.data)
        assert splits[split].labels.tolist() == found.targets


def test_what_is_unpacked_is_taken_before_an_archive_unless_a_file_is_missing(tmp_path: Path) -> None:
    unpacked(tmp_path, files("cifar-10-python"))
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"")
    read("cifar-10-python", tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    assert str(archive) in refusal("cifar-10-python", tmp_path)


class Payload:
    """Pickled, it calls a function with arguments when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile(tmp_path: Path) -> dict[str, bytes]:
    """Pickles that do harm when they are loaded by a trusting program."""

    sign = str(tmp_path / "harm")
    rows, labels = ROWS[:2], LABELS[:2]
    honest = python2_batch(rows, {"labels": labels})
    system = f"cos\nsystem\n(U{chr(len(sign) + 6)}touch {sign}tR0".encode()
    return {
        "a call before the data": honest[:2] + system + honest[2:],
        "a call in the data": pickle.dumps({"labels": labels, "data": Payload(os.system, f"touch {sign}")}),
        "open": pickle.dumps(Payload(open, sign, "w"), 2),
        "eval": pickle.dumps(Payload(eval, f"open({sign!r}, 'w')"), 4),
        "exec": f"c__builtin__\nexec\n(Vopen({sign!r}, 'w')\ntR.".encode(),
        "instance": f"(S'touch {sign}'\nios\nsystem\n.".encode(),
        "getattr": b"\x80\x04c__builtin__\ngetattr\n(cnumpy\nndarray\nX\x07\0\0\0tofile.tR.",
        "attribute by dots": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__class_\x93.",
        "class of the stand-in": b"\x80\x04\x8c\x05numpy\x8c\x14ndarray.__init__.foo\x93.",
        "another part of numpy": b"cnumpy\nload\n(S'x'\ntR.",
        "another encoding": pickle.dumps({"labels": labels, "data": Payload(codecs.encode, "x" * 9, "zlib")}, 4),
        "bytes to be encoded": pickle.dumps({"labels": labels, "data": Payload(codecs.encode, b"x", "latin1")}, 4),
        "columns": pickle.dumps({"labels": labels, "data": np.asfortranarray(rows)}, 5),
        "objects": pickle.dumps({"labels": labels, "data": np.array([[1, "x"]], object)}, 4),
        "floats": pickle.dumps({"labels": labels, "data": rows.astype(float)}, 4),
        "persistent": b"(S'x'\nQ.",
        "extension": b"\x80\x02\x82\x01.",
        "a list that holds itself": b"\x80\x02]q\0h\0a.",
        "labels that hold themselves": honest.replace(b"labels](K\x03", b"labels]q\0(h\0"),
        "no dict": pickle.dumps([1, 2]),
        "too deep": b"(" * 100_000 + b"." + b"l" * 100_000,
        "empty": b"",
        "text": b"hello",
        "an array without content": b"\x80\x02}(U\x04datacnumpy\nndarray\n)\x81U\x06labels](K\x01K\x02eu.",
        "a wrong shape": honest.replace(b"K\x02M\x00\x0c\x86", b"K\x03M\x00\x0c\x86"),
        "a negative shape": honest.replace(b"K\x02M\x00\x0c\x86", b"J\xff\xff\xff\xffM\x00\x0c\x86"),
        "more labels than rows": python2_batch(rows, {"labels": [1, 2, 3]}),
        "no labels": python2_batch(rows, {"tags": labels}),
        "labels that are text": pickle.dumps({"labels": ["1", "2"], "data": rows}, 4),
        "labels beyond any integer": pickle.dumps({"labels": [1, 10**30], "data": rows}, 4),
        "a label out of range": python2_batch(rows, {"labels": [1, 10]}),
        "cut short": honest[:-4000],
    }


@pytest.mark.parametrize("what", sorted(hostile(Path("unused"))))
def test_a_hostile_or_damaged_pickle_does_nothing_but_raise_an_error(what: str, tmp_path: Path) -> None:
    unpacked(tmp_path, files("cifar-10-python"))
    path = tmp_path / "cifar-10-batches-py" / "data_batch_4"
    path.write_bytes(hostile(tmp_path)[what])
    sentence = refusal("cifar-10-python", tmp_path)
    assert "data_batch_4" in sentence
    assert "replace it with an intact copy" in sentence
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("what", ["a call before the data", "a call in the data", "open", "eval", "instance"])
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_the_payloads_would_do_harm_to_a_trusting_program(what: str, tmp_path: Path) -> None:
    pickle.loads(hostile(tmp_path)[what], encoding="bytes")
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_newer_pythons_are_read_too(protocol: int) -> None:
    found = read_pickle(pickle.dumps({b"data": ROWS, "labels": LABELS, "names": ["ü"]}, protocol))
    assert np.array_equal(found["data"], ROWS)
    assert (found["labels"], found["names"]) == (LABELS, ["ü"])
    assert not found["data"].flags.writeable


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_a_device_in_place_of_a_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    name = "cifar-10-batches-py/data_batch_2"
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    tarred(tmp_path / "cifar-10-python.tar.gz", {**files("cifar-10-python"), name: member})
    assert f"expected {name} to be a file" in refusal("cifar-10-python", tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_archive_cut_short_or_changed_is_refused(version: str, tmp_path: Path) -> None:
    path = tarred(tmp_path / f"{version}.tar.gz", files(version))
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[-6] ^= 1  # in the checksum
    damaged = [b"", whole[:5], whole[: len(whole) // 2], whole[:-9], whole[:-1], b"<html>", bytes(changed)]
    for content in [*damaged, gzip.compress(b"no tar"), gzip.compress(gzip.decompress(whole)[:5000])]:
        path.write_bytes(content)
        assert f"{path} is damaged" in refusal(version, tmp_path)


def test_an_archive_without_one_of_its_files_is_refused(tmp_path: Path) -> None:
    found = files("cifar-10-python")
    del found["cifar-10-batches-py/data_batch_5"]
    tarred(tmp_path / "cifar-10-python.tar.gz", found)
    assert "expected cifar-10-batches-py/data_batch_5 in it" in refusal("cifar-10-python", tmp_path)


@pytest.mark.parametrize("version", ["cifar-10-binary", "cifar-100-binary"])
def test_a_binary_file_of_broken_rows_or_labels_is_refused(version: str, tmp_path: Path) -> None:
    content = files(version)
    name = max(content)
    for wrong in (b"", content[name][:-1], content[name] + b"\0"):
        unpacked(tmp_path, {**content, name: wrong})
        assert "is damaged: expected rows of" in refusal(version, tmp_path)
    label = 10 if version == "cifar-10-binary" else 100
    at = 0 if version == "cifar-10-binary" else 1
    unpacked(tmp_path, {**content, name: content[name][:at] + bytes([label]) + content[name][at + 1 :]})
    assert f"expected 0 to {label - 1}, found {label} at position 0;" in refusal(version, tmp_path)


def test_only_what_is_asked_for_is_kept_in_memory(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar.gz", {"d/big": bytes(10**7), "d/a": b"1", "d/b": b"2"})
    archive = Archive(name=path.name, size=0, md5="", folder="d", files=("a", "b"), dataset="x")
    assert {name: (stream.read(), size) for name, stream, size in streams(path, archive)} == {
        "a": (b"1", 1),
        "b": (b"2", 1),
    }


def test_missing_files_are_asked_for_in_one_sentence(tmp_path: Path) -> None:
    sentence = refusal("cifar-100-python", tmp_path / "data")
    assert sentence.startswith(f"CIFAR-100 is not there: put cifar-100-python.tar.gz into {tmp_path / 'data'}, ")
    assert "http://127.0.0.1:9/cifar-100-python.tar.gz" in sentence
    assert "Connection refused" in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_download_is_kept_if_its_checksum_is_right_and_only_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data_dir, name = tmp_path / "data", "cifar-10-python.tar.gz"
    content = tarred(tmp_path / name, files("cifar-10-python")).read_bytes()
    (tmp_path / name).unlink()
    with served(**{name: content}) as server:
        monkeypatch.setattr(cifar, "URL", server.url)
        right = hashlib.md5(content).hexdigest()
        first, *others = cifar.CIFAR10.versions
        assert f"checksum {first.md5}, found {right}" in refusal("cifar-10-python", data_dir)
        assert not list(data_dir.glob("[!.]*"))
        monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, versions=(replace(first, md5=right), *others)))
        assert read("cifar-10-python", data_dir)["train"].labels.tolist() == LABELS[:10]
        assert [path.name for path in data_dir.glob("[!.]*")] == [name]
    assert len(read("cifar-10-python", data_dir)["test"]) == 2


@pytest.mark.parametrize(("ours", "theirs"), [(cifar.CIFAR10, TORCHVISION10), (cifar.CIFAR100, TORCHVISION100)])
def test_checksums_and_names_are_torchvisions(ours: cifar.Cifar, theirs: Any) -> None:
    version = ours.versions[0]
    assert (version.md5, version.name, version.folder) == (theirs.tgz_md5, theirs.filename, theirs.base_folder)
    assert [name for name, _ in theirs.train_list + theirs.test_list] == list(version.files)


def test_the_addresses_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert f"{cifar.URL}cifar-10-python.tar.gz" == TORCHVISION10.url
    assert f"{cifar.URL}cifar-100-python.tar.gz" == TORCHVISION100.url
