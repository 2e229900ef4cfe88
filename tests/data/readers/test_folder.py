from __future__ import annotations

import hashlib
import importlib.resources
import os
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ssl_bench.data import catalog
from ssl_bench.data.images import Images
from ssl_bench.data.readers import imagenet100
from ssl_bench.data.readers.folder import Folder
from ssl_bench.data.splits import parts
from ssl_bench.errors import UserError

KEPT = Folder(root=None, test_root=None, stored=8, on_error="stop", max_pixels=10**6)


def place(root: Path, name: str, level: int) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (10, 6), level).save(path)
    return path


def animals(root: Path, each: int = 10) -> Path:
    for number, name in enumerate(("cat", "birds/owl", "birds/köder-日本", "d" * 200)):
        for image in range(each):
            place(root, f"{name}/{image}.png", 50 * number + image)
    return root


def load(root: Path, name: str = "folder", **changes: object) -> dict[str, Images]:
    return catalog.load(catalog.find(name, replace(KEPT, root=str(root), **changes)), "unused")  # type: ignore[arg-type]


def refusal(root: Path, **changes: object) -> str:
    with pytest.raises(UserError) as caught:
        load(root, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def levels(images: Images) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def test_classes_are_the_folders_however_deep_and_a_fifth_of_each_is_the_test(tmp_path: Path) -> None:
    root = animals(tmp_path / "animals")
    entry = catalog.find("folder", replace(KEPT, root=str(root)))
    assert (entry.classes, entry.train, entry.test, entry.channels, entry.height) == (4, 32, 8, 3, 8)
    splits = load(root)
    assert sorted(levels(splits["train"]) + levels(splits["test"])) == sorted(
        50 * number + image for number in range(4) for image in range(10)
    )
    assert splits["test"].labels.bincount().tolist() == [2, 2, 2, 2]
    written = [2, 1, 0, 3]  # the classes by name: birds/köder-日本, birds/owl, cat, ddd…
    for split in splits.values():
        assert [written[label] for label in split.labels.tolist()] == [level // 50 for level in levels(split)]
    again = load(root)
    assert {name: split.digest() for name, split in again.items()} == {
        name: split.digest() for name, split in splits.items()
    }


def test_a_test_folder_leaves_all_of_the_other_for_training(tmp_path: Path) -> None:
    root, other = animals(tmp_path / "a"), tmp_path / "b"
    place(other, "cat/x.webp", 7)
    splits = load(root, test_root=str(other))
    assert (len(splits["train"]), len(splits["test"])) == (40, 1)
    assert splits["test"].labels.tolist() == [2]
    place(other, "dog/x.png", 7)
    assert "has the class 'dog', which" in refusal(root, test_root=str(other))


def test_pictures_without_classes_are_all_for_training(tmp_path: Path) -> None:
    for number in range(5):
        place(tmp_path, f"{number}.PNG", number)
    splits = load(tmp_path)
    assert levels(splits["train"]) == [0, 1, 2, 3, 4]
    assert splits["train"].labels.tolist() == [-1] * 5
    assert len(splits["test"]) == 0
    animals(tmp_path, each=5)
    assert sorted(set(load(tmp_path)["train"].labels.tolist())) == [-1, 0, 1, 2, 3]


def test_what_is_no_picture_by_its_name_is_passed_over(tmp_path: Path) -> None:
    root = animals(tmp_path)
    for name in ("notes.txt", "cat/.hidden.png", "cat/._0.png", ".git/x.png", "cat/model.pth"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"no picture")
    (root / "empty class").mkdir()
    (root / "birds" / "none").mkdir()
    os.mkfifo(root / "cat" / "pipe.png")
    entry = catalog.find("folder", replace(KEPT, root=str(root)))
    assert entry.classes == 4
    assert len(load(root)["train"]) == 32
    others = f"2 file(s) of {root} are passed over for their endings: .pth, .txt."
    assert entry.notes == (
        f"2 folder(s) of {root} hold no pictures and are no classes, such as 'birds/none'.",
        others,
    )
    (root / "empty class").rmdir()
    (root / "birds" / "none").rmdir()
    assert catalog.find("folder", replace(KEPT, root=str(root))).notes == (others,)
    test_root = animals(tmp_path.with_name("test"))
    (test_root / "README").touch()
    notes = catalog.find("folder", replace(KEPT, root=str(root), test_root=str(test_root))).notes
    assert notes == (others, f"1 file(s) of {test_root} are passed over for their endings: without one.")


def test_links_are_followed_unless_they_lead_into_themselves(tmp_path: Path) -> None:
    animals(tmp_path / "elsewhere")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere" / "cat")
    place(root, "other/a.png", 1)
    place(root, "other/c.png", 1)
    (root / "other" / "b.png").symlink_to(tmp_path / "elsewhere" / "cat" / "0.png")
    splits = load(root)
    assert len(splits["train"]) + len(splits["test"]) == 13
    (root / "other" / "round").symlink_to(root)
    assert "is a link to a folder that it lies in" in refusal(root)


@pytest.mark.parametrize("kind", ["half", "empty", "dangling"])
def test_a_broken_picture_ends_the_run_or_is_left_out_and_counted(kind: str, tmp_path: Path) -> None:
    root = animals(tmp_path)
    path = root / "cat" / "3.png"
    content = path.read_bytes()
    path.unlink()
    if kind == "dangling":
        path.symlink_to("nowhere.png")
    else:
        path.write_bytes(content[:40] if kind == "half" else b"")
    assert refusal(root).startswith(f"{path} cannot be read as a picture: ")
    splits = load(root, on_error="skip")
    assert [name for split in splits.values() for name in split.skipped] == ["cat/3.png"]
    assert sum(map(len, splits.values())) == 39
    for split in splits.values():
        assert [int(Path(name).stem) for name in split.names] == [level % 50 for level in levels(split)]
    assert all(len(split.labels) == len(split.images) for split in splits.values())


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == f"{tmp_path / 'nowhere'} does not exist: give a folder of pictures."
    (tmp_path / "notes.txt").touch()
    assert refusal(tmp_path / "notes.txt").startswith(f"Cannot read {tmp_path / 'notes.txt'}: Not a directory;")
    assert f"{tmp_path} holds no pictures: expected files ending in .png, " in refusal(tmp_path)
    with pytest.raises(UserError, match=r"set dataset\.root=<folder>"):
        catalog.find("folder", KEPT)


def test_a_class_too_small_for_the_splits_is_pretrained_on_without_a_label(tmp_path: Path) -> None:
    root, other = animals(tmp_path / "animals"), tmp_path / "other"
    for name in ("ant/1.png", "ant/2.png", "bee/1.png"):
        place(root, name, 250)

    def entry(**changes: Any) -> catalog.Dataset:
        return catalog.find("folder", replace(KEPT, root=str(root), **changes))

    assert entry().names == ("birds/köder-日本", "birds/owl", "cat", "d" * 200)
    assert entry().notes == (
        f"3 picture(s) of 2 class(es) of {root} with fewer than 3, such as 'ant', have no label: they are pretrained "
        "on and never scored (dataset.min_images, dataset.depth).",
    )
    splits = load(root)
    assert (len(splits["train"]), len(splits["test"])) == (35, 8)
    small = [
        label
        for label, level in zip(splits["train"].labels.tolist(), levels(splits["train"]), strict=True)
        if level == 250
    ]
    assert small == [-1] * 3
    assert splits["test"].labels.bincount().tolist() == [2, 2, 2, 2]
    # A test folder leaves a picture more for the rest. Of a class that is too small, none of its pictures is judged.
    place(other, "cat/1.png", 7)
    place(other, "bee/1.png", 8)
    assert entry(test_root=str(other)).names == ("ant", *entry().names)
    splits = load(root, test_root=str(other))
    assert levels(splits["test"]) == [7]
    assert sorted(splits["train"].labels.tolist()) == [-1, 0, 0, *sorted([1, 2, 3, 4] * 10)]
    place(root, "d" * 200 + "/more.png", 3)
    assert entry(min_images=11).names == ("d" * 200,)
    assert entry(min_images=12).classes == 0
    assert refusal(root, min_images=2) == (
        "dataset.min_images=2 is less than the splits need: choose 3 at least, or null."
    )
    assert len(load(root, min_images=2, test_root=str(other))["train"]) == 44


def test_a_class_that_broken_pictures_leave_too_small_ends_nothing(tmp_path: Path) -> None:
    root = animals(tmp_path)
    for number in range(3):
        place(root, f"ant/{number}.png", 250)
    tested = next(name for name in load(root)["test"].names if name.startswith("ant/"))
    others = sorted(path for path in (root / "ant").iterdir() if path.name != Path(tested).name)
    others[0].write_bytes(b"broken")
    labels = load(root, on_error="skip")["train"].labels
    found = parts(labels, subset_size=None, label_count=None, hold_out_validation=True)
    only = (labels == 0).nonzero().item()
    assert only in found.bank
    assert only not in found.validation


def test_the_depth_of_classes_may_be_limited(tmp_path: Path) -> None:
    root = animals(tmp_path)
    assert catalog.find("folder", replace(KEPT, root=str(root), depth=1)).names == ("birds", "cat", "d" * 200)
    splits = load(root, depth=1)
    assert (splits["train"].labels.bincount() + splits["test"].labels.bincount()).tolist() == [20, 10, 10]
    assert load(root, depth=2)["train"].digest() == load(root)["train"].digest()


def test_spellings_of_one_name_are_one_class(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    root, other = tmp_path / "root", tmp_path / "other"
    for number in range(4):
        place(root, f"{composed}/{number}.png", number)
        place(root, f"{apart}/{number}.png", 50 + number)
        place(root, f"caff/{number}.png", 100 + number)
    if len(list(root.iterdir())) < 3:
        pytest.skip("the file system joins them itself")
    place(other, f"{apart}/x.png", 7)
    entry = catalog.find("folder", replace(KEPT, root=str(root), test_root=str(other)))
    assert entry.names == (composed, "caff")  # the place of the first spelling
    assert [level < 100 for level in levels(load(root)["train"])] == [not label for label in load(root)["train"].labels]
    assert load(root, test_root=str(other))["test"].labels.tolist() == [0]


SPLITS = [
    # names below pets, what to set
    (
        ("train/cat", "train/dog", "test/cat", "test/dog"),
        "dataset.root={0}/train dataset.test_root={0}/test, or rename",
    ),
    (("train/cat", "valid/cat", "test/cat"), "dataset.root={0}/train dataset.test_root={0}/test, or rename"),
    (("Training/cat", "Validation/cat"), "dataset.root={0}/Training dataset.test_root={0}/Validation, or rename"),
    (("train/cat", "val/cat", "test"), "dataset.root={0}/train dataset.test_root={0}/val, or rename"),
    (("train/cat", "test1"), "dataset.root={0}/train, or rename"),
    (("train2017", "val2017"), "dataset.root={0}/train2017, or rename"),
    (("all/train/cat", "all/test/cat"), "dataset.root={0}/all/train dataset.test_root={0}/all/test, or rename"),
    (("cat/train", "cat/test", "dog/train"), "dataset.root={0}/cat/train, or dataset.depth=1 where the folder above"),
]


@pytest.mark.parametrize(("folders", "advice"), SPLITS, ids=lambda value: value[0])
def test_splits_are_not_taken_for_classes(folders: tuple[str, ...], advice: str, tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for folder in folders:
        for number in range(3):
            place(root, f"{folder}/{number}.png", number)
    shown = refusal(root)
    assert "which are splits and no classes by their names: set " + advice.format(root) in shown
    assert advice.format(root) in refusal(animals(tmp_path / "animals"), test_root=str(root))


def test_test_pictures_are_not_among_those_to_learn_from(tmp_path: Path) -> None:
    root = animals(tmp_path / "animals")
    (tmp_path / "link").symlink_to(root / "cat")
    for other in (root, root / "birds", tmp_path / "link"):
        assert f"test_root={other} is or lies in dataset.root={root}, so that its" in refusal(
            root, test_root=str(other)
        )


def test_what_the_advice_sets_works_and_other_names_are_classes(tmp_path: Path) -> None:
    for folder in ("train/cat", "test/cat", "shapes/cat/train", "shapes/cat/test"):
        for number in range(3):
            place(tmp_path, f"{folder}/{number}.png", number)
    splits = load(tmp_path / "train", test_root=str(tmp_path / "test"))
    assert (len(splits["train"]), len(splits["test"])) == (3, 3)
    assert catalog.find("folder", replace(KEPT, root=str(tmp_path / "shapes"), depth=1)).names == ("cat",)
    for folder in ("train", "plane", "trainer", "testudo", "valley", "contest"):
        for number in range(3):
            place(tmp_path / "vehicles", f"{folder}/{number}.png", number)
    assert catalog.find("folder", replace(KEPT, root=str(tmp_path / "vehicles"))).classes == 6


def test_what_storage_and_this_program_put_beside_pictures_is_no_class(tmp_path: Path) -> None:
    root = animals(tmp_path)
    before = load(root)["train"].digest()
    for name in (
        "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/cat/0.jpg",
        "#recycle/1.png",
        "cat/._0.jpg",
        ".x/a.png",
    ):
        place(root, name, 1)
    run = root / "runs" / "0123456789ab"
    (run / "checkpoints").mkdir(parents=True)
    for path in (run / "config.yaml", root / "data" / "packed" / "folder-16-0.safetensors"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    place(run, "tsne.png", 3)
    place(root, "runs/show-digits.png", 3)
    entry = catalog.find("folder", replace(KEPT, root=str(root)))
    assert entry.names == ("birds/köder-日本", "birds/owl", "cat", "d" * 200)
    assert entry.notes[0] == f"{root / 'runs'} holds runs of this program and is passed over."
    assert load(root)["train"].digest() == before
    # where runs lie beside pictures, these are pictures
    run.rename(root / run.name)
    assert catalog.find("folder", replace(KEPT, root=str(root))).train == 32 + 1
    assert not any("tsne" in name for name in load(root)["train"].names)


def test_a_class_folder_that_may_not_be_entered_is_named(tmp_path: Path) -> None:
    root = animals(tmp_path)
    closed, user = root / "birds" / "owl", os.geteuid()
    for path in (tmp_path, *tmp_path.parents[:3]):  # pytest keeps them to their owner
        path.chmod(0o755)
    closed.chmod(0)
    if user == 0:
        os.seteuid(65534)  # root may enter everywhere, nobody may not
    try:
        assert refusal(root) == f"Cannot read {closed}: Permission denied; give another folder."
        assert refusal(root, on_error="skip").startswith(f"Cannot read {closed}")
    finally:
        os.seteuid(user)
        closed.chmod(0o755)


def test_a_folder_is_only_read(tmp_path: Path) -> None:
    root = animals(tmp_path / "animals")
    before = sorted((path, path.stat().st_mtime_ns) for path in [root, *root.rglob("*")])
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert len(load(root)["train"]) == 32
    assert sorted((path, path.stat().st_mtime_ns) for path in [root, *root.rglob("*")]) == before


def test_names_in_any_alphabet_or_none_go_with_their_images(tmp_path: Path) -> None:
    for number, name in enumerate(("ä ö", "日本", os.fsdecode(b"\xff\xfe"), "n" * 250)):
        for image in range(4):
            place(tmp_path, f"{name}/{name[:200]}{image}.png", 50 * number + image)
    splits = load(tmp_path)
    for split in splits.values():
        assert all(split.names[row].endswith(f"{level % 50}.png") for row, level in enumerate(levels(split)))
    assert len({*splits["train"].names, *splits["test"].names}) == 16


def test_the_hundred_classes_are_those_of_the_paper() -> None:
    classes = imagenet100.class_list()
    assert len(set(classes)) == catalog.find("imagenet100").classes == 100
    listed = importlib.resources.files("ssl_bench.data").joinpath(imagenet100.LIST).read_bytes()
    published = "5ee5db69d488bb799a286d8e181801c3d02798776c1ce9203e5450f64e086e07"
    assert hashlib.sha256(listed).hexdigest() == published


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """An ImageNet folder of two pictures a class, one of each for validation, with a class that is not wanted."""
    for number, wnid in enumerate([*imagenet100.class_list(), "n00000001"]):
        for image in range(2):
            place(tmp_path, f"imagenet/train/{wnid}/{wnid}_{image}.JPEG", number)
        place(tmp_path, f"imagenet/val/{wnid}/ILSVRC2012_val_{number:08d}.JPEG", number)
    return tmp_path


def test_imagenet100_is_the_hundred_classes_of_an_imagenet_folder(imagenet: Path) -> None:
    for folder, data_dir in ((KEPT, imagenet), (replace(KEPT, root=str(imagenet / "imagenet")), Path("unused"))):
        splits = imagenet100.read(folder, data_dir)
        assert splits["train"].labels.tolist() == [number for number in range(100) for _ in range(2)]
        assert splits["test"].labels.tolist() == levels(splits["test"]) == list(range(100))
    with pytest.raises(UserError, match=r"train split of imagenet100 .* 126689 × 3 × 8 × 8, found 200 × 3 × 8 × 8"):
        catalog.load(catalog.find("imagenet100", KEPT), imagenet)


def test_an_imagenet_folder_without_a_class_or_none_at_all_is_asked_for(imagenet: Path, tmp_path: Path) -> None:
    missing = imagenet / "imagenet" / "val" / imagenet100.class_list()[7]
    for path in missing.iterdir():
        path.unlink()
    missing.rmdir()
    with pytest.raises(UserError, match=f"val has no pictures of 1 of the 100 classes, such as {missing.name}"):
        imagenet100.read(KEPT, imagenet)
    with pytest.raises(
        UserError, match=r"ImageNet-100 is not there: get ImageNet .* or set dataset\.root=<its folder>"
    ):
        imagenet100.read(KEPT, tmp_path / "nowhere")
