from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from formats import unpacked
from PIL import Image

from ssl_bench.data.readers import tiny_imagenet
from ssl_bench.errors import UserError

WNIDS = ["n02124075", "n01443537", "n04067472"]  # not sorted, as in the official file


def picture(level: int, mode: str) -> bytes:
    smooth = np.add.outer(np.arange(64), np.arange(64)) // 2 + level
    image = Image.fromarray(smooth.astype(np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def files() -> dict[str, bytes]:
    found = {"wnids.txt": "\n".join(WNIDS).encode(), "words.txt": b"n02124075\tEgyptian cat\n"}
    for number, wnid in enumerate(WNIDS):
        for image in range(2):
            found[f"train/{wnid}/images/{wnid}_{image}.JPEG"] = picture(40 * number + image, "L" if image else "RGB")
        found[f"train/{wnid}/{wnid}_boxes.txt"] = b"n0_0.JPEG\t0\t10\t63\t58\n"
    found["val/val_annotations.txt"] = b"".join(
        f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62\n".encode() for number, wnid in enumerate(reversed(WNIDS))
    )
    for number in range(3):
        found[f"val/images/val_{number}.JPEG"] = picture(30 * number, "RGB")
    found["test/images/test_0.JPEG"] = picture(99, "RGB")
    return {f"tiny-imagenet-200/{name}": content for name, content in found.items()}


def zipped(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        tiny_imagenet.read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_imagenet, "URL", "http://127.0.0.1:9/")


@pytest.mark.parametrize("place", [zipped, unpacked])
def test_classes_are_numbered_by_name_and_validation_images_by_their_annotations(place: object, tmp_path: Path) -> None:
    place(tmp_path, files())  # type: ignore[operator]
    splits = tiny_imagenet.read(tmp_path)
    assert splits["train"].images.shape == (6, 3, 64, 64)
    assert splits["train"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits["test"].labels.tolist() == [2, 0, 1]  # n04067472, n01443537, n02124075
    names = sorted(name for name in files() if name.endswith(".JPEG"))
    for split, part in (("train", "/train/"), ("test", "/val/")):
        contents = [files()[name] for name in names if part in name]
        for image, content in zip(splits[split].images, contents, strict=True):
            expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("place", [zipped, unpacked])
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "val/val_annotations.txt",
            b"val_0.JPEG\tn02124075\t0\nval_1.JPEG\tn02124075\n",
            "val/images/val_2.JPEG, found n",
        ),
        ("val/val_annotations.txt", b"", "for val/images/val_0.JPEG, found none"),
        ("wnids.txt", b"n02124075\nn01443537\n", "for train/n04067472/images/n04067472_0.JPEG, found none"),
        (
            "train/n01443537/images/n01443537_1.JPEG",
            b"",
            "n01443537_1.JPEG cannot be read as a picture: cannot identify",
        ),
        (
            "train/n01443537/images/n01443537_0.JPEG",
            picture(9, "RGB")[:700],
            "n01443537_0.JPEG cannot be read as a pic",
        ),
    ],
)
def test_a_missing_annotation_or_half_a_picture_is_named(
    place: object, name: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    place(tmp_path, {**files(), f"tiny-imagenet-200/{name}": content})  # type: ignore[operator]
    assert sentence in refusal(tmp_path)


def test_an_archive_without_annotations_or_cut_short_is_refused(tmp_path: Path) -> None:
    found = files()
    del found["tiny-imagenet-200/val/val_annotations.txt"]
    path = zipped(tmp_path, found)
    assert f"{path} is damaged: expected val/val_annotations.txt in it" in refusal(tmp_path)
    zipped(tmp_path, files())
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-100])
    assert f"{path} is damaged" in refusal(tmp_path)
    content[content.index(b"val_0.JPEG\t") + 2] ^= 1
    path.write_bytes(content)
    assert f"{path} is damaged" in refusal(tmp_path)


def test_a_member_that_expands_to_too_many_pixels_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(file, "JPEG")
    zipped(tmp_path, {**files(), "tiny-imagenet-200/val/images/val_1.JPEG": file.getvalue()})
    assert "val/images/val_1.JPEG cannot be read as a picture: it has more than 4096 pixels" in refusal(tmp_path)


@pytest.mark.parametrize("where", ["local header", "data", "flags"])
def test_a_damaged_member_is_named(where: str, tmp_path: Path) -> None:
    path = zipped(tmp_path, files())
    name = b"tiny-imagenet-200/val/images/val_1.JPEG"
    content = bytearray(path.read_bytes())
    start = content.index(name) - 30
    if where == "local header":
        content[start] ^= 1
    elif where == "data":
        at = start + 30 + len(name)
        content[at + 200 : at + 300] = bytes(100)
    else:
        content[content.rindex(name) - 46 + 8] |= 1  # encrypted, by the directory
    path.write_bytes(content)
    assert "val/images/val_1.JPEG cannot be read as a picture: " in refusal(tmp_path)
