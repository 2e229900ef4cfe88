from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_bench.data.readers.fashion_mnist import read_idx, read_pair
from ssl_bench.errors import UserError

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (6, 3, 4), dtype=np.uint8)
LABELS = np.array([0, 9, 3, 3, 1, 5], dtype=np.uint8)


def encode(values: np.ndarray, kind: int = 0x08) -> bytes:
    return bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "images.gz", encode(IMAGES)), write(tmp_path / "labels", encode(LABELS))


def test_images_and_labels_come_back_as_written(pair: tuple[Path, Path]) -> None:
    split = read_pair(*pair, classes=10)
    assert split.images.dtype == torch.uint8
    assert split.labels.dtype == torch.int64
    assert split.images.shape == (6, 1, 3, 4)
    assert split.images.flatten().tolist() == IMAGES.flatten().tolist()
    assert split.labels.tolist() == LABELS.tolist()
    split.images.add_(1)  # the tensors own their memory and may be written to


def test_a_file_is_unzipped_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    zipped, plain = tmp_path / "zipped", tmp_path / "plain.gz"
    zipped.write_bytes(gzip.compress(encode(LABELS)))
    plain.write_bytes(encode(LABELS))
    for path in (zipped, plain):
        assert read_idx(path, "labels", 1).tolist() == LABELS.tolist()


def refusal(path: Path, dimensions: int = 3) -> str:
    """The sentence in which ``path`` is refused: one line that begins with or contains the file."""
    with pytest.raises(UserError) as caught:
        read_idx(path, "images", dimensions)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "expected" in sentence
    assert "found" in sentence
    assert "replace" in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_a_gzip_stream_cut_short_is_refused(tmp_path: Path) -> None:
    content = gzip.compress(encode(IMAGES))
    for length in (3, 12, len(content) // 2, len(content) - 1):
        (tmp_path / "images.gz").write_bytes(content[:length])
        assert "damaged" in refusal(tmp_path / "images.gz")


def test_a_gzip_stream_with_a_wrong_byte_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(encode(IMAGES)))
    content[-6] ^= 1  # in the checksum
    (tmp_path / "images.gz").write_bytes(content)
    assert "damaged" in refusal(tmp_path / "images.gz")


def test_an_idx_file_cut_short_is_refused_at_any_length(tmp_path: Path) -> None:
    content = encode(IMAGES)
    path = tmp_path / "images"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        sentence = refusal(path)
        assert ("no idx file" if length < 4 else "has the wrong length") in sentence
    assert "expected a header of 16 bytes and 6 × 3 × 4 values, found 87 bytes" in sentence


def test_an_idx_file_with_bytes_left_over_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "labels", encode(LABELS) + b"\0")
    assert "has the wrong length: expected a header of 8 bytes and 6 values, found 15 bytes" in refusal(
        path, dimensions=1
    )


def test_a_header_promising_more_than_any_memory_is_refused(tmp_path: Path) -> None:
    header = bytes([0, 0, 0x08, 4]) + struct.pack(">4I", *[2**32 - 1] * 4)
    assert "the wrong length" in refusal(write(tmp_path / "images", header), dimensions=4)


@pytest.mark.parametrize("start", [b"\x89PNG", b"\0\1\x08\3", b"<htm", b"\0\0\x08\1", b"\0\0\x0d\3"])
def test_another_format_dimension_or_type_is_refused(start: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "images", start + encode(IMAGES)[4:])
    assert f"{path} is no idx file of images: expected it to begin with 00000803, found {start.hex()};" in refusal(path)


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert "Is a directory" in refusal(tmp_path / "images")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "images")


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "labels", encode(LABELS))
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything, nobody may not
    try:
        assert "Permission denied" in refusal(path)
    finally:
        os.seteuid(user)


def test_files_of_different_length_are_refused(pair: tuple[Path, Path]) -> None:
    write(pair[1], encode(LABELS[:5]))
    with pytest.raises(
        UserError, match=r"images.gz and .*labels do not belong .* found 6 images and 5 labels; replace"
    ):
        read_pair(*pair, classes=10)


def test_a_label_beyond_the_classes_is_refused(pair: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"labels holds a label .* expected 0 to 8, found 9 at position 1; replace"):
        read_pair(*pair, classes=9)
