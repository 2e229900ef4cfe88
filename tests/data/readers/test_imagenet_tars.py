from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from formats import tarred, unpacked
from PIL import Image
from scipy.io import savemat

from ssl_bench.cli import data as commands
from ssl_bench.config.compose import compose
from ssl_bench.data import catalog
from ssl_bench.data.readers import imagenet100, imagenet_tars
from ssl_bench.data.readers.folder import Folder
from ssl_bench.errors import UserError
from ssl_bench.training.run import run

FOLDER = Folder(root=None, test_root=None, stored=8, on_error="stop", max_pixels=10**6)
CLASSES = ["n02000001", "n01000002", "n03000003"]  # as numbered in the kit: not sorted; the last one is not wanted
WANTED = CLASSES[:2]
TRUTH = [2, 3, 1, 2, 1]
KIT = "ILSVRC2012_devkit_t12.tar.gz"


@pytest.fixture(autouse=True)
def two_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet100, "class_list", lambda: sorted(WANTED))


def picture(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (10, 6), (level, 2 * level, 7)).save(file, "JPEG")
    return file.getvalue()


TRAIN = {f"{wnid}/{wnid}_{10**n}.JPEG": picture(20 * c + n) for c, wnid in enumerate(CLASSES) for n in range(3)}
VAL = {f"ILSVRC2012_val_{number:08d}.JPEG": picture(90 + number) for number in range(1, 6)}


def meta(wnids: list[str] = CLASSES) -> bytes:
    """A table of synsets as the kit has it: a structure array whose later entries are groups of classes."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(float(number), wnid, "a word", 0.0) for number, wnid in enumerate(wnids, 1)]
    rows += [(1001.0 + number, f"n0900000{number}", "a group", 2.0) for number in range(3)]
    file = io.BytesIO()
    savemat(file, {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    return file.getvalue()


def kit(wnids: list[str] = CLASSES, truth: list[int] = TRUTH) -> dict[str, bytes]:
    return {
        "ILSVRC2012_devkit_t12/readme.txt": b"ILSVRC2012",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta(wnids),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in truth).encode(),
    }


def tar(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as written:
        for name, content in members.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else b""
            if data:
                member.size = len(data)
            written.addfile(member, io.BytesIO(data))
    return file.getvalue()


def class_tars() -> dict[str, bytes | tarfile.TarInfo]:
    return {
        f"{wnid}.tar": tar({name.partition("/")[2]: content for name, content in TRAIN.items() if wnid in name})
        for wnid in reversed(CLASSES)
    }


def packed(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / imagenet_tars.TRAIN).write_bytes(tar(class_tars()))
    (folder / imagenet_tars.VAL).write_bytes(tar(dict(reversed(VAL.items()))))
    tarred(folder / KIT, dict(kit()))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        imagenet100.read(replace(FOLDER, root=str(folder)), Path("unused"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("place", ["root", "imagenet", "imagenet100", "."])
def test_tars_give_what_the_folder_of_the_same_files_gives(place: str, tmp_path: Path) -> None:
    val = {f"{CLASSES[TRUTH[n] - 1]}/{name}": content for n, (name, content) in enumerate(VAL.items())}
    files = {f"train/{n}": c for n, c in TRAIN.items()} | {f"val/{n}": c for n, c in val.items()}
    unpacked(tmp_path / "unpacked", files)
    folder = packed(tmp_path / "packed" / place)
    at = replace(FOLDER, root=str(folder)) if place == "root" else FOLDER
    ours = imagenet100.listings(at, tmp_path / "packed")
    theirs = imagenet100.listings(replace(FOLDER, root=str(tmp_path / "unpacked")), tmp_path)
    for split in ("train", "test"):
        assert ours[split].names == theirs[split].names
        assert ours[split].labels.tolist() == theirs[split].labels.tolist()
        for name in ours[split].names:
            assert ours[split].read(name) == theirs[split].read(name) == (TRAIN | val)[name]
        assert ours[split].rows(ours[split].labels[:1]).read(ours[split].names[0])
    read = imagenet100.read(at, tmp_path / "packed")
    expected = imagenet100.read(replace(FOLDER, root=str(tmp_path / "unpacked")), tmp_path)
    assert {split: images.digest() for split, images in read.items()} == {
        split: images.digest() for split, images in expected.items()
    }
    assert read["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert read["test"].labels.tolist() == [0, 0, 1, 1]


def test_a_split_may_be_unpacked_and_the_other_packed(tmp_path: Path) -> None:
    packed(tmp_path)
    expected = {name: images.digest() for name, images in imagenet100.read(FOLDER, tmp_path).items()}
    (tmp_path / imagenet_tars.TRAIN).unlink()
    unpacked(tmp_path, {f"train/{name}": content for name, content in TRAIN.items()} | {"val/flat.JPEG": picture(1)})
    assert {name: images.digest() for name, images in imagenet100.read(FOLDER, tmp_path).items()} == expected


def test_another_layout_is_refused_with_what_to_do(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'} does not exist: set dataset.root to ")
    root = tmp_path / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC"
    unpacked(root, {f"train/{n}": c for n, c in TRAIN.items()} | {f"val/{n}": c for n, c in VAL.items()})
    near = f"does not hold train/ and val/, but {root} does: set dataset.root={root}."
    assert refusal(tmp_path / "kaggle") == f"{tmp_path / 'kaggle'} {near}"
    assert refusal(root.parent) == f"{root.parent} {near}"
    assert refusal(root / "train") == f"{root / 'train'} {near}"
    assert refusal(tmp_path).startswith(
        f"{tmp_path} holds neither train/ and val/ with a folder per class nor ILSVRC2012_"
    )
    assert refusal(root) == (
        f"{root / 'val'} has 5 files and no class folders: sort them into val/<class>/, or put ILSVRC2012_img_val.tar "
        f"and ILSVRC2012_devkit_t12.tar.gz into {root}."
    )
    # which works
    (root / imagenet_tars.VAL).write_bytes(tar(dict(VAL)))
    tarred(root / KIT, dict(kit()))
    assert imagenet100.read(replace(FOLDER, root=str(root)), tmp_path)["test"].labels.tolist() == [0, 0, 1, 1]


def test_the_pictures_are_not_read_for_the_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train = class_tars()
    large = tar({f"{WANTED[0]}_1.JPEG": bytes(10**7), f"{WANTED[0]}_2.JPEG": b"x"})
    folder = packed(tmp_path)
    (folder / imagenet_tars.TRAIN).write_bytes(tar({**train, f"{WANTED[0]}.tar": large}))
    taken = 0

    class Counted(io.FileIO):
        def readinto(self, buffer: object) -> int:
            nonlocal taken
            count = super().readinto(buffer)  # type: ignore[arg-type]
            taken += count
            return count

    monkeypatch.setattr(imagenet_tars, "open", lambda path, mode: io.BufferedReader(Counted(path)), raising=False)
    listing = imagenet100.listings(replace(FOLDER, root=str(folder)), tmp_path)["train"]
    assert len(listing.names) == 5
    assert 0 < taken < 10**6


def test_a_picture_that_is_broken_is_named_by_its_tar(tmp_path: Path) -> None:
    folder = packed(tmp_path)
    train = class_tars()
    train[f"{WANTED[1]}.tar"] = tar({"a.JPEG": picture(1)[:300], "b.JPEG": picture(2)})
    (folder / imagenet_tars.TRAIN).write_bytes(tar(train))
    path = folder / imagenet_tars.TRAIN / WANTED[1] / "a.JPEG"
    assert refusal(folder).startswith(f"{path} cannot be read as a picture: ")
    read = imagenet100.read(replace(FOLDER, root=str(folder), on_error="skip"), tmp_path)
    assert read["train"].skipped == (f"{WANTED[1]}/a.JPEG",)


def link(kind: bytes, name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("where", ["class", "picture", "validation"])
def test_a_link_is_not_followed(kind: bytes, where: str, tmp_path: Path) -> None:
    folder = packed(tmp_path)
    if where == "validation":
        name = "ILSVRC2012_val_00000001.JPEG"
        (folder / imagenet_tars.VAL).write_bytes(tar({**VAL, name: link(kind, name)}))
    elif where == "class":
        name = f"{WANTED[0]}.tar"
        (folder / imagenet_tars.TRAIN).write_bytes(tar({**class_tars(), name: link(kind, name)}))
    else:
        name = "x.JPEG"
        inner = tar({"y.JPEG": picture(1), name: link(kind, name)})
        (folder / imagenet_tars.TRAIN).write_bytes(tar({**class_tars(), f"{WANTED[0]}.tar": inner}))
    assert f"expected {name} to be a file" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 300, 700, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("name", [imagenet_tars.TRAIN, imagenet_tars.VAL])
def test_a_tar_cut_short_is_named(name: str, keep: float, tmp_path: Path) -> None:
    path = packed(tmp_path) / name
    content = path.read_bytes()
    whole = len(content.rstrip(b"\0"))  # what lacks is not the zeros at the end
    whole += -whole % 512
    path.write_bytes(content[: int(keep * whole) if isinstance(keep, float) else keep])
    sentence = refusal(tmp_path)
    assert str(path) in sentence
    assert "is damaged: expected a whole archive" in sentence


@pytest.mark.parametrize("keep", [0, 100, 600, 1400])
def test_a_class_cut_short_within_the_tar_is_named(keep: int, tmp_path: Path) -> None:
    folder = packed(tmp_path)
    inner = class_tars()[f"{WANTED[0]}.tar"]
    assert isinstance(inner, bytes)
    (folder / imagenet_tars.TRAIN).write_bytes(tar({**class_tars(), f"{WANTED[0]}.tar": inner[:keep]}))
    sentence = refusal(folder)
    assert str(folder / imagenet_tars.TRAIN) in sentence
    assert "is damaged" in sentence or f"such as {WANTED[0]}" in sentence


def without(part: str) -> Callable[[Path], object]:
    return lambda folder: tarred(folder / KIT, {name: c for name, c in kit().items() if not name.endswith(part)})


def changed(part: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: tarred(folder / KIT, {name: content if part in name else c for name, c in kit().items()})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: (folder / KIT).unlink(), f"are not there: put {KIT} beside it."),
        (without("meta.mat"), "expected ILSVRC2012_devkit_t12/data/meta.mat in it"),
        (without("truth.txt"), "truth.txt in it"),
        (changed("meta", b"junk"), "meta.mat of {kit} is damaged: expected MATLAB's table of synsets, found: "),
        (changed("meta", b""), "meta.mat of {kit} is damaged"),
        (changed("meta", meta()[:300]), "meta.mat of {kit} is damaged"),
        (changed("truth", b""), "a number from 1 to 1000 in each line, found nothing"),
        (changed("truth", b"1\n2\nx\n1\n1\n"), "in each line, found x"),
        (changed("truth", b"1\n2\n1001\n1\n1\n"), "in each line, found 1001"),
        (changed("truth", b"1\n2\n3\n"), "holds ILSVRC2012_val_00000005.JPEG, but ILSVRC2012_devkit_t12 gives"),
        (changed("truth", b"1\n1\n3\n1\n1\n"), f"no pictures of 1 of the 2 classes, such as {WANTED[1]}"),
        (lambda folder: (folder / KIT).write_bytes(b"x"), "{kit} is damaged: expected a whole archive"),
        (lambda folder: (folder / imagenet_tars.VAL).write_bytes(tar({"cat.JPEG": b"x"})), "holds cat.JPEG, but"),
    ],
)
def test_a_kit_that_does_not_fit_is_named(change: Callable[[Path], object], expected: str, tmp_path: Path) -> None:
    change(packed(tmp_path))
    assert expected.replace("{kit}", str(tmp_path / KIT)) in refusal(tmp_path)


def test_an_unpacked_kit_serves_as_well(tmp_path: Path) -> None:
    packed(tmp_path)
    (tmp_path / KIT).unlink()
    unpacked(tmp_path, kit())
    assert len(imagenet100.read(FOLDER, tmp_path)["test"]) == 4


def test_nothing_there_names_the_tars(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"is not there: .* put ILSVRC2012_img_train\.tar, .* into .*imagenet or unpack"
    ):
        imagenet100.read(FOLDER, tmp_path)


@pytest.mark.slow
def test_tars_go_through_a_pack_to_the_record(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()  # all hundred classes
    monkeypatch.chdir(tmp_path)
    classes = imagenet100.class_list()
    entry = replace(catalog.DATASETS["imagenet100"], train=8 * len(classes), test=2 * len(classes))
    monkeypatch.setitem(catalog.DATASETS, "imagenet100", entry)
    random = np.random.default_rng(0)

    def noise() -> bytes:
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(file, "JPEG")
        return file.getvalue()

    folder = tmp_path / "data" / "imagenet"
    folder.mkdir(parents=True)
    trained = {f"{wnid}.tar": tar({f"{wnid}_{n}.JPEG": noise() for n in range(8)}) for wnid in classes}
    (folder / imagenet_tars.TRAIN).write_bytes(tar(dict(trained)))
    truth = [*range(1, 101), *range(1, 101)]
    shown = {f"ILSVRC2012_val_{number:08d}.JPEG": noise() for number in range(1, len(truth) + 1)}
    (folder / imagenet_tars.VAL).write_bytes(tar(dict(shown)))
    tarred(folder / KIT, dict(kit(classes, truth)))
    options = ["dataset=imagenet100", "dataset.stored=16", "dataset.size=8"]
    config = compose(
        [*options, "scale=smoke", "method=simclr", "epochs=1", "trainer.threads=1", "trainer.progress=false"]
    )

    with pytest.raises(UserError, match=r"python -m ssl_bench data pack dataset=imagenet100"):
        run(config.changed({"dataset.memory": 0.0}))
    assert commands.main(["pack", *options]) == 0
    (pack,) = (tmp_path / "data" / "packed").glob("imagenet100-16-*.safetensors")
    record = run(config.changed({"dataset.memory": 0.0}))
    assert record.images == {"pretraining": 640, "bank": 640, "probe": 640, "validation": 100, "test": 200}
    pack.unlink()
    capsys.readouterr()
    assert run(config).results == record.results
    assert f"Finished before: runs/{record.fingerprint}" in capsys.readouterr().out  # in memory it is the same run
