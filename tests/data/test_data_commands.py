"""python -m ssl_bench data: what it shows of datasets that are there, that are not, and that are damaged."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_bench.augment.views import CleanView
from ssl_bench.cli import data as command
from ssl_bench.config.compose import compose
from ssl_bench.data import catalog, inventory, places, verify
from ssl_bench.data.images import Images
from ssl_bench.data.readers import cifar, downloads
from ssl_bench.data.readers.fashion_mnist import DEBIAN
from ssl_bench.data.readers.folder import Folder
from ssl_bench.data.single_images import batches_of, chosen_images, clean_view, pixels
from ssl_bench.errors import UserError
from ssl_bench.training.build import build, clean_arguments

Run = Callable[..., tuple[int, str, str]]
PICTURES = ("dataset=folder", "dataset.size=8", "batch_size=4", "scale=smoke")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command in this process, offline, in an empty folder: exit status, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")

    def no_download(*_: object, **__: object) -> None:
        raise UserError("Nothing is downloaded here.")

    monkeypatch.setattr(downloads, "_require_answer", no_download)

    def run(*options: str) -> tuple[int, str, str]:
        status = command.main(options)
        return status, *capsys.readouterr()

    return run


def pictures(root: Path, names: tuple[str, ...] = ("Köder-日本", "[red]"), each: int = 5) -> Path:
    """Pictures of 12 × 10 pixels, no two alike."""
    random = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(random.integers(0, 256, (10, 12, 3), np.uint8)).save(root / name / f"{number}.png")
    return root


def row(table: str, name: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"│ {name} ")]
    return [cell.strip() for cell in line.split("│")[2:-1]]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["lst"], "command lst is unknown; did you mean list?"),
        (["zzz"], "command zzz is unknown; known are list, prepare, pack, verify, show, table."),
        (
            ["dataset=digits"],
            "dataset=digits needs a command before it: one of list, prepare, pack, verify, show, table.",
        ),
        (["prepare", "digits"], "'digits' is not of the form key=value; did you mean dataset=digits?"),
        (["show", "dataset=digit"], "dataset=digit is unknown; did you mean digits? Known: "),
        (["show", "images=0"], "images=0 is not allowed: images is a whole number at least 1."),
        (["show", "sede=1"], "option sede is unknown; did you mean seed?"),
        (["show", "image=3"], "option image is unknown; did you mean images?"),
        (["pack", "dataset=folder"], "dataset=folder needs to know where the pictures are: set dataset.root=<folder>."),
        (["prepare", "dataset=cifar10"], "Nothing is downloaded here."),
        (["verify", "dataset=imagenet100", "dataset.root=none"], "none does not exist: give another dataset.root"),
        (["prepare", "dataset=folder", "dataset.root=none"], "none does not exist: give a folder of pictures."),
    ],
)
def test_a_wrong_option_is_answered_in_one_sentence(run: Run, options: list[str], sentence: str) -> None:
    status, output, errors = run(*options)
    assert (status, output) == (2, "")
    assert errors.startswith(f"ssl_bench: {sentence}")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("options", [[], ["--help"], ["show", "-h"]])
def test_without_a_command_all_commands_and_options_are_explained(run: Run, options: list[str]) -> None:
    status, output, _ = run(*options)
    assert status == 0
    assert all(f"  {name} " in output for name in command.COMMANDS)
    assert all(f"  {option}=" in output for option in ("images", "views", "out"))


def test_a_wrong_option_is_answered_before_torch_is_imported() -> None:
    script = "import sys, ssl_bench.cli.data as m; m.main(['show', 'sede=1']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


def test_list_shows_what_is_on_disk_and_what_there_is_to_fetch(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    (tmp_path / "data" / "cifar10" / "cifar-10-python.tar.gz").write_bytes(bytes(2_340_000))
    (tmp_path / "data" / "packed").mkdir()
    (tmp_path / "data" / "packed" / "imagenet100-96-ab.safetensors").write_bytes(bytes(1000))
    status, output, errors = run("list")
    assert (status, errors) == (0, "")
    assert all(row(output, name) for name in catalog.DATASETS)
    assert row(output, "cifar10") == ["✓", "50,000", "10,000", "10", "32 × 32"]
    assert [row(output, name)[0] for name in ("cifar100", "digits", "imagenet100")] == ["–", "✓", "–"]
    assert row(output, "folder")[1:4] == ["–", "–", "–"]
    lines = output.splitlines()
    assert "cifar10: cifar-10-python.tar.gz in data/cifar10 (packed, 2.3 MB). Licence: none stated." in lines
    fetch = "cifar100: prepare dataset=cifar100 downloads cifar-100-python.tar.gz, 169.0 MB. Licence: none stated."
    assert fetch in lines
    (imagenet,) = [line for line in lines if line.startswith("imagenet100: ")]
    assert "ImageNet (ILSVRC 2012) from https://image-net.org, 155 GB, to data/imagenet, packed or not" in imagenet
    assert "+ imagenet100-96-ab.safetensors in data/packed (packed, 1.0 kB)" in imagenet


def test_list_decodes_and_downloads_nothing(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = pictures(tmp_path / "mine")
    for path in root.rglob("*.png"):
        path.write_bytes(b"no picture")
    for name, entry in catalog.DATASETS.items():
        monkeypatch.setitem(catalog.DATASETS, name, replace(entry, read=None))  # type: ignore[arg-type]
    status, output, _ = run("list", "dataset=folder", "dataset.root=mine")
    assert status == 0
    assert row(output, "folder")[:4] == ["✓", "8", "2", "2"]
    assert "folder: mine in . (unpacked, 100 bytes). Licence: the user's." in output.splitlines()
    assert row(output, "cifar10")[0] == "–"


def test_what_a_reader_reads_is_what_is_found(tmp_path: Path) -> None:
    """Half an unpacked dataset is none; unpacked wins over packed, in both places where readers look."""
    for kind, name in ((cifar.CIFAR10, "cifar10"), (cifar.CIFAR100, "cifar100")):
        folder = tmp_path / name / kind.versions[1].folder
        folder.mkdir(parents=True)
        files = kind.versions[1].files
        for file in files[1:]:
            (folder / file).touch()
        assert places.found(name, tmp_path) == []
        (folder / files[0]).touch()
        assert places.found(name, tmp_path) == [folder]
    for name, file in (("stl10", "stl10_binary.tar.gz"), ("tiny_imagenet", "tiny-imagenet-200.zip")):
        assert places.found(name, tmp_path) == []
        (tmp_path / file).touch()
        assert places.found(name, tmp_path) == [tmp_path / file]
    (tmp_path / "imagenet" / "train").mkdir(parents=True)
    assert places.found("imagenet100", tmp_path) == []
    tars = [tmp_path / "imagenet" / name for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")]
    for tar in tars:
        tar.touch()
    assert places.found("imagenet100", tmp_path) == tars
    (tmp_path / "imagenet" / "train" / "n01558993").mkdir()
    assert places.found("imagenet100", tmp_path) == [tmp_path / "imagenet" / "train", tars[1]]
    (tmp_path / "imagenet" / "val" / "n01558993").mkdir(parents=True)
    assert places.found("imagenet100", tmp_path) == [tmp_path / "imagenet" / part for part in ("train", "val")]


def test_every_dataset_has_a_place_and_a_way_to_get_it() -> None:
    for name in set(catalog.DATASETS) - {"digits"}:
        assert (name in places.DOWNLOADS) != (name in places.BY_HAND)
    for files in places.DOWNLOADS.values():
        assert all(places.PUBLISHED[file.name] is file for file in files)


def test_prepare_counts_every_class_of_every_split(run: Run) -> None:
    status, output, _ = run("prepare", "dataset=digits")
    assert status == 0
    assert "train: 1,438 images of 1 × 8 × 8\ntest: 359 images of 1 × 8 × 8\n" in output
    cells = [row(output, str(number)) for number in range(10)]
    assert [cell[0] for cell in cells] == [str(number) for number in range(10)]
    assert [sum(int(cell[column]) for cell in cells) for column in (1, 2)] == [1438, 359]


def test_prepare_names_the_classes_of_a_folder_as_they_are_written(run: Run, tmp_path: Path) -> None:
    pictures(tmp_path / "mine")
    status, output, _ = run("prepare", *PICTURES, "dataset.root=mine")
    assert status == 0
    assert "folder is there: mine in . (unpacked, " in output
    assert [row(output, str(number)) for number in range(2)] == [["Köder-日本", "4", "1"], ["[red]", "4", "1"]]


def test_many_classes_are_summed_up_and_images_without_a_label_are_counted() -> None:
    labels = torch.arange(30).repeat(4)
    splits = {
        "train": Images(torch.zeros(122, 1, 1, 1), torch.cat([labels, torch.tensor([-1, 29])])),
        "test": Images(torch.zeros(120, 1, 1, 1), labels),
    }
    entry = replace(catalog.find("digits"), classes=30, names=tuple(f"c{number}" for number in range(30)))
    shown = [finding.text for split in splits for finding in verify.labels(entry, split, splits[split].labels)]
    assert shown == [
        "train: labels lie between 0 and 29",
        "train: 4 (c0) to 5 (c29) images of each of 30 classes; 1 images without a label",
        "test: labels lie between 0 and 29",
        "test: 4 images of each of 30 classes",
    ]


def test_a_broken_picture_is_named_or_left_out_and_counted(run: Run, tmp_path: Path) -> None:
    root = pictures(tmp_path / "mine")
    broken = sorted((root / "Köder-日本").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:60])
    options = ("dataset.root=mine", *PICTURES)
    status, _, errors = run("prepare", *options)
    assert status == 2
    assert errors.startswith(f"ssl_bench: mine/Köder-日本/{broken.name} cannot be read as a picture: ")
    status, output, _ = run("prepare", *options, "dataset.on_error=skip")
    assert status == 0
    assert "warning: 1 broken picture(s) of train left out, such as " in output
    for more, shown in (((), "cannot be read as a picture"), (("dataset.on_error=skip",), "1 pictures cannot be read")):
        status, output, _ = run("verify", *options, *more)
        assert status == 1
        assert [line for line in output.splitlines() if line.startswith("✗") and shown in line]


def test_pack_hands_over_the_dataset_and_shows_whether_it_had_to_work(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pictures(tmp_path / "mine")
    made: list[Path] = []

    def stand_in(dataset: catalog.Dataset, data_dir: Path, *, progress: Callable[[int, int], None]) -> Path:
        assert (dataset.name, dataset.train, dataset.test) == ("folder", 8, 2)
        assert dataset.folder is not None
        assert dataset.folder.root == "mine"
        if not made:
            progress(5, 10)
            progress(10, 10)
        made.append(data_dir / "packed" / "folder-16-ab.safetensors")
        return made[-1]

    monkeypatch.setattr(inventory, "packed", SimpleNamespace(pack=stand_in, skipped=lambda path: ["a.png (why)"]))
    options = ("pack", *PICTURES, "dataset.root=mine", "data_dir=there")
    status, output, _ = run(*options)
    assert status == 0
    assert output.endswith("there/packed/folder-16-ab.safetensors is packed.\nleft out: a.png (why)\n")
    assert run(*options)[1] == "there/packed/folder-16-ab.safetensors is there already.\nleft out: a.png (why)\n"


def test_what_fits_into_memory_is_not_packed(run: Run) -> None:
    assert run("pack", "dataset=cifar10") == (0, "cifar10 always fits into memory: nothing is to be packed.\n", "")


@pytest.mark.parametrize(
    "name", ["digits", pytest.param("fashion_mnist", marks=pytest.mark.skipif(not DEBIAN.exists(), reason="no copy"))]
)
def test_verify_finds_nothing_wrong_with_intact_data(run: Run, name: str) -> None:
    status, output, _ = run("verify", f"dataset={name}")
    assert status == 0
    assert "✗" not in output
    for shown in ("train: channel means 0.", "train: labels lie between 0 and 9", "no test image is in train as well"):
        assert f"✓ {shown}" in output
    assert output.endswith(f"{name}: all is right.\n")


def test_verify_fetches_nothing(run: Run) -> None:
    status, output, errors = run("verify", "dataset=stl10")
    assert (status, output) == (2, "")
    assert "There is no stl10 for data_dir=data to verify: prepare dataset=stl10 downloads" in errors


def wrong(entry: catalog.Dataset, **changes: object) -> list[str]:
    """The findings that do not hold, of digits with ``changes``."""
    found = verify.findings(replace(entry, **changes), Path("none"), [])  # type: ignore[arg-type]
    return [finding.text for finding in found if finding.holds is False]


def with_train(change: Callable[[torch.Tensor, torch.Tensor], object]) -> catalog.Dataset:
    """Digits whose training images and labels ``change`` has written into."""
    entry = catalog.find("digits")

    def read(data_dir: Path) -> dict[str, Images]:
        splits = entry.read(data_dir)
        train = Images(splits["train"].images.clone(), splits["train"].labels.clone())
        change(train.images, train.labels)
        return {**splits, "train": train}

    return replace(entry, read=read)


def test_verify_finds_each_kind_of_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = catalog.find("digits")
    test = digits.read(Path("none"))["test"].images
    assert wrong(digits) == []
    assert wrong(digits, mean=(0.3075,)) == [
        "train: expected channel means 0.3075 and deviations 0.3758 within 0.001, found channel means 0.3054 and "
        "deviations 0.3758"
    ]
    assert wrong(digits, test=360)[0].startswith("The test split of digits found for data_dir=none is not the official")
    assert wrong(with_train(lambda images, labels: labels.clamp_(max=8))) == [
        "train: no image of 1 of 10 classes, such as 9"
    ]
    assert wrong(with_train(lambda images, labels: labels[:1].fill_(10))) == ["train: labels lie between 0 and 9"]
    repeated = with_train(lambda images, labels: images[:2].copy_(test[:2]))
    assert wrong(repeated) == []  # a published dataset is as it is: stated, and no fault
    assert wrong(replace(digits, balanced=("test",))) == [
        "test: expected 36 images of each of 10 classes, found 35 (2) to 37 (3) images"
    ]


def test_a_dataset_that_builds_on_folder_is_verified_as_one(tmp_path: Path) -> None:
    root = pictures(tmp_path / "mine")
    folder = Folder(root=str(root), test_root=None, stored=8, on_error="stop", max_pixels=10**6)
    found = [[*verify.findings(catalog.find(name, folder), tmp_path, [root])] for name in ("folder", "animals")]
    assert found[0] == found[1]
    assert any(finding.text.startswith("train: 8 images") and finding.holds is None for finding in found[1])


def test_a_test_picture_that_is_in_train_is_a_fault_of_a_folder_of_ones_own(run: Run, tmp_path: Path) -> None:
    root, others = pictures(tmp_path / "mine"), pictures(tmp_path / "others")
    (root / "[red]" / "0.png").write_bytes((others / "Köder-日本" / "3.png").read_bytes())
    # All others differ by a stripe, which squashing keeps.
    for path in others.rglob("*.png"):
        if path.name != "3.png" or "red" in str(path):
            image = np.array(Image.open(path))
            image[:5] = 0
            Image.fromarray(image).save(path)
    (root / "Köder-日本" / "3.png").unlink()
    status, output, _ = run("verify", *PICTURES, "dataset.root=mine", "dataset.test_root=others")
    assert status == 1
    pair = "Köder-日本/3.png and [red]/0.png of train; remove one of each two"
    assert f"✗ 1 of 10 test images are in train as well, pixel for pixel, such as {pair}\n" in output
    assert output.endswith("folder: 1 of these are wrong.\n")


def test_one_picture_of_two_classes_is_a_fault_of_a_folder_of_ones_own(run: Run, tmp_path: Path) -> None:
    root = pictures(tmp_path / "mine")
    (root / "[red]" / "0.png").write_bytes((root / "Köder-日本" / "0.png").read_bytes())
    shutil.copytree(root, tmp_path / "others")
    status, output, _ = run("verify", *PICTURES, "dataset.root=mine", "dataset.test_root=others")
    assert status == 1
    assert "✗ 1 training image(s) repeat an earlier one under another class, such as " in output


def test_an_empty_class_folder_is_named_and_leaves_the_other_classes_right(run: Run, tmp_path: Path) -> None:
    (pictures(tmp_path / "mine") / "empty").mkdir()
    status, output, _ = run("verify", *PICTURES, "dataset.root=mine")
    assert status == 0
    assert "✓ train: 4 images of each of 2 classes\n" in output
    (note,) = [line for line in output.splitlines() if line.startswith("· ") and "empty" in line]
    assert "no pictures" in note


def test_an_archive_is_compared_with_its_published_checksum(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(b"content")
    finding, *_ = verify.findings(catalog.find("cifar10"), tmp_path, [path])
    assert finding.holds is False
    assert "expected 170,498,071 bytes with MD5 c58f30108f718f92721af3b95e74349a, found" in finding.text
    md5 = finding.text.partition(" with MD5 ")[2].rpartition(" with ")[2].partition(";")[0]
    monkeypatch.setitem(places.PUBLISHED, path.name, replace(places.PUBLISHED[path.name], md5=md5))
    assert next(verify.findings(catalog.find("cifar10"), tmp_path, [path])).holds is True


def test_the_pack_in_use_is_verified_and_no_other(run: Run, tmp_path: Path) -> None:
    pictures(tmp_path / "mine")
    assert run("pack", *PICTURES, "dataset.root=mine")[0] == 0
    (pack,) = (tmp_path / "data" / "packed").glob("*.safetensors")
    other = pack.with_name("folder-16-0123456789ab.safetensors")
    other.write_bytes(b"damaged")
    status, output, _ = run("verify", *PICTURES, "dataset.root=mine")
    assert status == 0
    assert f"✓ data/packed/{pack.name} is whole: all checksums hold\n" in output
    assert f"· data/packed/{other.name} is not what these pictures are read from" in output
    content = bytearray(pack.read_bytes())
    content[5000] ^= 1
    pack.write_bytes(content)
    status, output, _ = run("verify", *PICTURES, "dataset.root=mine")
    assert status == 1
    assert f"✗ data/packed/{pack.name} is no pack of ssl_bench or is damaged (the pixels of" in output


def test_labels_means_and_deviations_are_judged() -> None:
    digits = catalog.find("digits")
    assert [text.partition(":")[0] for text in wrong(digits, std=(0.3785,))] == ["train"]
    assert wrong(digits, std=(0.3785,))[0].startswith("train: expected channel means")
    assert wrong(with_train(lambda images, labels: labels[:1].fill_(-2))) == ["train: labels lie between 0 and 9"]
    train = digits.read(Path("none"))["train"]
    assert verify._channels(digits, train).holds is True
    assert verify._channels(replace(digits, train=5), train).holds is None  # not the whole split


def test_a_class_may_be_left_out_of_ones_own_test_pictures_alone(tmp_path: Path) -> None:
    folder = Folder(root=str(pictures(tmp_path / "mine")), test_root=None, stored=8, on_error="stop", max_pixels=10**6)
    own = catalog.find("folder", folder)
    for entry, split, expected in ((own, "test", None), (own, "train", False), (catalog.find("digits"), "test", False)):
        one = torch.zeros(3, dtype=torch.int64)
        assert [f.holds for f in verify.labels(entry, split, one) if "no image of" in f.text] == [expected]


def test_an_archive_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    finding, *_ = verify.findings(catalog.find("cifar10"), tmp_path, [path])
    assert (finding.holds, finding.text) == (False, f"{path} cannot be read: No such file or directory")


def test_channel_statistics_are_numpys() -> None:
    images = torch.randint(0, 256, (2_345, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    means, deviations = verify.channel_statistics(images)
    pixels = images.numpy().astype(np.float64) / 255
    assert means == pytest.approx(pixels.mean((0, 2, 3)), abs=1e-12)
    assert deviations == pytest.approx(pixels.std((0, 2, 3)), abs=1e-12)


def test_every_class_has_one_name() -> None:
    for entry in catalog.DATASETS.values():
        assert len(set(entry.names)) == len(entry.names)
        assert len(entry.names) in (0, entry.classes)
    for name in ("cifar10", "cifar100"):
        assert list(catalog.find(name).names) == sorted(catalog.find(name).names)


SMOKE = ("dataset=digits", "scale=smoke")


@pytest.mark.parametrize("options", [(), ("method=pic",), ("augment.groups.local.count=2", "seed=3")])
def test_what_is_shown_is_what_training_draws_and_evaluation_sees(options: tuple[str, ...]) -> None:
    config = compose([*SMOKE, *options])
    method, data = build(config)
    loader = data.train_dataloader()
    chosen = chosen_images(loader, 12)
    shown = {number: list(zip(range(3), batches_of(loader, number), strict=False)) for number in chosen}
    trained: dict[int, list[list[torch.Tensor]]] = {number: [] for number in chosen}
    for _ in range(3):
        for batch in loader:
            views = method.views(batch)
            for row, number in enumerate(batch.index.tolist()):
                if number in trained:
                    trained[number].append([view[row : row + 1] for view in views])
    for number, looks in shown.items():
        assert looks
        for (_, one), views in zip(looks, trained[number], strict=False):
            assert all(map(torch.equal, method.views(one), views))
    clean = CleanView(**clean_arguments(config, data.dataset))
    for number, looks in shown.items():
        image = data.splits["train"].images[number : number + 1]
        assert torch.equal(clean_view(clean, looks[0][1]), clean(image))


def test_images_are_of_as_many_classes_as_there_are() -> None:
    _, data = build(compose(SMOKE))
    loader = data.train_dataloader()
    labels = data.splits["train"].labels
    first = chosen_images(loader, 10)
    assert sorted(labels[first].tolist()) == list(range(10))
    assert len(set(chosen_images(loader, 15))) == 15
    assert loader.state_dict() == {"epoch": 0, "step": 0}


def test_pixels_are_those_of_the_image_before_it_was_normalised() -> None:
    images = torch.randint(0, 256, (1, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clean = CleanView(9, 1.0, (0.1, 0.5, 0.9), (0.2, 0.5, 0.3))
    assert np.array_equal(pixels(clean(images), clean), images[0].permute(1, 2, 0).numpy())


def tiles(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_show_draws_every_pixel_of_the_clean_view_gray_where_images_are_gray(run: Run, tmp_path: Path) -> None:
    status, output, _ = run("show", *SMOKE, "images=3", "views=4", "out=a/b.png")
    assert (status, output) == (0, "a/b.png shows 3 images and 4 views of each.\n")
    picture = tiles(tmp_path / "a" / "b.png")
    config = compose(SMOKE)
    _, data = build(config)
    loader = data.train_dataloader()
    clean = CleanView(**clean_arguments(config, data.dataset))
    number = chosen_images(loader, 1)[0]
    seen = pixels(clean_view(clean, next(batches_of(loader, number))), clean)
    large = seen.repeat(6, 0).repeat(6, 1)
    height, width = large.shape[:2]
    x = 24
    places_of_it = [
        y for y in range(picture.shape[0] - height) if np.array_equal(picture[y : y + height, x : x + width], large)
    ]
    assert len(places_of_it) == 1
    assert np.ptp(picture[places_of_it[0] : places_of_it[0] + height].astype(int), axis=-1).max() == 0


def test_show_draws_small_views_small_and_names_what_the_font_lacks(run: Run, tmp_path: Path) -> None:
    pictures(tmp_path / "mine", ("$x$ 日本", "$", "\\frac{", "[b]"))
    status, _, _ = run(
        "show",
        *PICTURES,
        "dataset.root=mine",
        "images=4",
        "augment.groups.local.count=2",
        "augment.groups.local.size=4",
    )
    assert status == 0
    assert tiles(tmp_path / "runs" / "show-folder.png").shape[1] >= 640


@pytest.mark.parametrize("name", ["prepare", "verify", "show"])
def test_pictures_without_classes_have_no_names_and_no_faults(run: Run, tmp_path: Path, name: str) -> None:
    pictures(tmp_path / "mine", (".",), each=6)
    status, output, errors = run(name, *PICTURES, "dataset.root=mine")
    assert (status, errors) == (0, "")
    assert "class" not in output
    assert "✗" not in output


def test_a_picture_that_cannot_be_saved_is_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, errors = run("show", *SMOKE, "images=1", "out=file/a.png")
    assert status == 2
    assert errors.startswith("ssl_bench: file/a.png could not be saved (")
    assert errors.count("\n") == 1
    assert run("table", "out=file")[0] == 2
    assert run("show", *SMOKE, "out=folder")[2] == "ssl_bench: out=folder must end in .png.\n"
