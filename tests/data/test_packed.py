"""Packed pictures: what a run reads is what it would have decoded, and nothing half-written is ever read."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from ssl_bench.config.compose import compose
from ssl_bench.data import catalog, pack_file, packed
from ssl_bench.data.datamodule import DataModule
from ssl_bench.data.images import Images
from ssl_bench.data.readers import pictures
from ssl_bench.data.readers.folder import Folder
from ssl_bench.errors import UserError
from ssl_bench.training.run import run

SIDE = 8
KEPT = Folder(root=None, test_root=None, stored=SIDE, on_error="stop", max_pixels=10**6)


def saw(done: int, total: int) -> None:
    pass


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Noise of many shapes in three classes, by names of all kinds."""
    generator = np.random.default_rng(0)
    for number in range(45):
        folder = tmp_path / "pictures" / ("cat", "birds/köder-日本", "d" * 200)[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        shape = [(1, 1), (2, 3000), (9, 6), (12, 31)][number % 4]
        image = Image.fromarray(generator.integers(0, 256, (*shape, 3), dtype=np.uint8))
        image.save(folder / f"{number}{'ü' * 60}.png")
    return tmp_path / "pictures"


def folder_of(root: Path, **changes: Any) -> Folder:
    return replace(KEPT, root=str(root), **changes)


def load(root: Path, data_dir: Path, **changes: Any) -> dict[str, Images]:
    return catalog.load(catalog.find("folder", folder_of(root, **changes)), data_dir)


def pack(root: Path, data_dir: Path, progress: Any = saw, **changes: Any) -> Path:
    folder = folder_of(root, **changes)
    return packed.pack(catalog.find("folder", folder), data_dir, progress=progress)


def refusal(*arguments: Any, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        pack(*arguments, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def is_mapped(images: Images) -> bool:
    """Whether the pixels lie in a file that is mapped into memory."""
    address = images.images.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= address < end:
            return line.endswith(".safetensors")
    return False


def assert_equal(mine: dict[str, Images], others: dict[str, Images]) -> None:
    for split in ("train", "test"):
        a, b = mine[split], others[split]
        for name in ("images", "labels", "sizes", "hashes"):
            assert torch.equal(getattr(a, name), getattr(b, name)), (split, name)
            assert getattr(a, name).dtype == getattr(b, name).dtype
        assert a.skipped == b.skipped
        assert a.digest() == b.digest()


def test_packed_pictures_are_those_in_memory_bit_for_bit(root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    memory = load(root, tmp_path)
    path = pack(root, tmp_path, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 45) for done in range(46)]
    assert path.parent == tmp_path / "packed"
    assert path.name.startswith("folder-8-")
    assert path.suffix == ".safetensors"
    found = load(root, tmp_path)
    assert_equal(found, memory)
    if os.path.exists("/proc/self/maps"):
        assert is_mapped(found["train"])
        assert not is_mapped(memory["train"])
    assert len(found["test"]) > 0
    assert [name for name in os.listdir(path.parent) if not name.startswith(".")] == [path.name]
    before = path.stat()
    assert pack(root, tmp_path, lambda done, total: seen.clear()) == path
    assert len(seen) == 46
    assert path.stat() == before
    pack_file.verify(path)


def test_sizes_are_those_a_viewer_shows(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b", "c"):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "d.jpg", exif=exif)
    Image.new("RGB", (400, 300)).save(tmp_path / "e.jpg")  # decoded smaller
    Image.new("RGB", (20_000, 3)).save(tmp_path / "f.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "g.gif")
    sizes = load(tmp_path, tmp_path)["train"].sizes
    assert sizes is not None
    assert sizes.tolist() == [[30, 40]] * 3 + [[40, 30], [300, 400], [3, 20_000], [1, 1]]


def test_the_file_is_one_that_the_official_reader_reads(root: Path, tmp_path: Path) -> None:
    path = pack(root, tmp_path)
    found = load(root, tmp_path)
    with safe_open(path, framework="pt") as file:
        for split in ("train", "test"):
            for name in ("images", "labels", "sizes", "hashes"):
                assert torch.equal(file.get_tensor(f"{split}.{name}"), getattr(found[split], name))
        assert "birds/köder-日本" in bytes(file.get_tensor("train.names").tolist()).decode("unicode_escape")


@pytest.mark.parametrize("side", [1, 3, 7])
def test_odd_sides_and_splits_without_images_are_packed(side: int, tmp_path: Path) -> None:
    for number in range(5):
        Image.new("RGB", (5, number + 1), (number, 0, 0)).save(tmp_path / f"{number}.png")
    memory = load(tmp_path, tmp_path / "data", stored=side)
    path = pack(tmp_path, tmp_path / "data", stored=side)
    found = load(tmp_path, tmp_path / "data", stored=side)
    assert_equal(found, memory)
    assert found["test"].images.shape == (0, 3, side, side)
    pack_file.verify(path)
    with safe_open(path, framework="pt") as file:
        assert torch.equal(file.get_tensor("train.sizes"), found["train"].sizes)


def module(root: Path, data_dir: Path) -> DataModule:
    return DataModule(
        dataset=catalog.find("folder", folder_of(root)),
        data_dir=data_dir,
        batch_size=6,
        evaluation_batch_size=5,
        seed=3,
        subset=None,
        labels=None,
        hold_out_validation=True,
        window=None,
        resident="auto",
    )


def batches(data: DataModule, rank: int, world: int) -> list[Any]:
    loader = data.train_dataloader()
    loader.rank, loader.world = rank, world
    return [batch for _ in range(2) for batch in loader]


def test_any_number_of_ranks_sees_the_same_in_memory_and_packed(root: Path, tmp_path: Path) -> None:
    memory = module(root, tmp_path / "none")
    pack(root, tmp_path)
    stored = module(root, tmp_path)
    assert stored.digest == memory.digest
    whole = batches(memory, 0, 1)
    assert len(whole) > 4
    for world in (1, 2, 3):
        for parts in zip(whole, *(batches(stored, rank, world) for rank in range(world)), strict=True):
            for name in ("images", "labels", "index", "sizes"):
                assert torch.equal(getattr(parts[0], name), torch.cat([getattr(part, name) for part in parts[1:]]))


def test_a_pass_resumes_in_the_middle_of_packed_images(root: Path, tmp_path: Path) -> None:
    pack(root, tmp_path)
    data = module(root, tmp_path)
    loader = iter(data.train_dataloader())
    for _ in range(2):
        next(loader)
    state, rest = data.state_dict(), list(loader)
    later = module(root, tmp_path)
    later.load_state_dict(state)
    again = list(later.train_dataloader())
    assert len(rest) == len(again) > 1
    for mine, other in zip(rest, again, strict=True):
        assert mine.place == other.place
        assert torch.equal(mine.images, other.images)
        assert torch.equal(mine.sizes, other.sizes)


OPTIONS = ("dataset=folder", "dataset.size=8", "scale=smoke", "method=simclr", "batch_size=8", "epochs=1")


@pytest.mark.slow
def test_a_run_on_packed_pictures_is_the_run_on_those_in_memory(root: Path, tmp_path: Path) -> None:
    options = [*OPTIONS, f"dataset.root={root}", f"data_dir={tmp_path}", "trainer.threads=1", "trainer.progress=false"]
    first = run(compose([*options, f"runs_dir={tmp_path / 'a'}"]))
    with pytest.raises(UserError) as caught:
        run(compose([*options, "dataset.memory=0"]))
    command = str(caught.value).partition("pack them into a file by: ")[2]
    assert command == (
        f"python -m ssl_bench data pack dataset=folder dataset.root={root} dataset.stored=16 "
        f"dataset.max_pixels=89478485 data_dir={tmp_path}"
    )
    pack(root, tmp_path, stored=16, max_pixels=89478485)
    second = run(compose([*options, f"runs_dir={tmp_path / 'b'}", "dataset.memory=0"]))
    for key in ("fingerprint", "results", "curves", "data_digest", "skipped_images", "images"):
        assert getattr(first, key) == getattr(second, key)
    name = first.fingerprint
    for file in ("metrics.csv", "encoder.safetensors"):
        assert (tmp_path / "a" / name / file).read_bytes() == (tmp_path / "b" / name / file).read_bytes()


def test_more_than_the_memory_allowed_asks_to_be_packed(root: Path, tmp_path: Path) -> None:
    needed = 45 * 3 * SIDE * SIDE
    assert len(load(root, tmp_path, memory=needed / 2**30)["train"]) == 36
    with pytest.raises(UserError, match=r"more than dataset\.memory=.*pack dataset=folder dataset\.root="):
        load(root, tmp_path, memory=(needed - 1) / 2**30)
    pack(root, tmp_path)
    assert len(load(root, tmp_path, memory=(needed - 1) / 2**30)["train"]) == 36


@pytest.mark.parametrize("change", ["added", "removed", "touched", "renamed"])
def test_a_changed_folder_is_noticed_and_packed_anew(change: str, root: Path, tmp_path: Path) -> None:
    old = pack(root, tmp_path)
    image = next((root / "cat").iterdir())
    if change == "added":
        Image.new("RGB", (3, 3)).save(root / "cat" / "new.png")
    elif change == "removed":
        image.unlink()
    elif change == "touched":
        os.utime(image, ns=(0, image.stat().st_mtime_ns + 1))
    else:
        image.rename(image.with_name("other.png"))
    with pytest.raises(UserError, match=r"no longer fits .* pack them anew by: python -m ssl_bench data pack "):
        load(root, tmp_path, memory=0)
    assert not is_mapped(load(root, tmp_path)["train"])
    new = pack(root, tmp_path)
    assert new != old
    assert not old.exists()
    assert is_mapped(load(root, tmp_path, memory=0)["train"])


def test_a_folder_that_moves_keeps_its_pack_and_other_folders_keep_theirs(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    paths = [pack(root, tmp_path), pack(copy, tmp_path), pack(root, tmp_path, stored=4)]
    assert len({*paths}) == 3
    assert all(path.exists() for path in paths)
    assert is_mapped(load(root.rename(tmp_path / "moved"), tmp_path, memory=0)["train"])


def test_a_broken_picture_is_named_and_stops_or_is_skipped_and_counted(root: Path, tmp_path: Path) -> None:
    bad = root / "cat" / "bad.png"
    bad.write_bytes(b"no picture")
    assert refusal(root, tmp_path).startswith(f"{bad} cannot be read as a picture: ")
    assert not list((tmp_path / "packed").glob("*.safetensors"))
    path = pack(root, tmp_path, on_error="skip")
    found = load(root, tmp_path, on_error="skip")
    assert sum(len(images.skipped) for images in found.values()) == 1
    assert_equal(found, load(root, tmp_path / "none", on_error="skip"))
    pack_file.verify(path)
    with pytest.raises(UserError, match=r"bad\.png cannot be read as a picture"):
        load(root, tmp_path)


KILLED = """
import sys
from pathlib import Path
from ssl_bench.data import catalog, packed
from ssl_bench.data.readers.folder import Folder
folder = Folder(root=sys.argv[1], test_root=None, stored=32, on_error="skip", max_pixels=10**6)
print("ready", flush=True)
packed.pack(catalog.find("folder", folder), Path(sys.argv[2]), progress=lambda done, total: None)
"""


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_file(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    for number in range(400):
        Image.fromarray(np.roll(noise, number, axis=1)).save(root / f"{number}.jpg")
    (root / "77.jpg").write_bytes(b"broken")
    changes: dict[str, Any] = {"stored": 32, "on_error": "skip"}
    whole = pack(root, tmp_path / "whole", **changes)
    broken, chance, kills = tmp_path / "broken", random.Random(0), 0
    for _ in range(6):
        options = [sys.executable, "-c", KILLED, str(root), str(broken)]
        process = subprocess.Popen(options, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        before = [path.stat().st_size for path in broken.glob("packed/*.journal")]
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:  # until it has got further
            if [path.stat().st_size for path in broken.glob("packed/*.journal")] > [
                size + 200 for size in before or [0]
            ]:
                break
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert kills >= 3
    seen: list[int] = []
    again = pack(root, broken, lambda done, total: seen.append(done), **changes)
    assert seen[0] > 0  # it went on
    assert again.read_bytes() == whole.read_bytes()
    assert again.name == whole.name


class StoppedError(Exception):
    pass


def stopped(*_: object) -> None:
    raise StoppedError


def stop_at(last: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done == last:
            raise StoppedError

    return progress


@pytest.mark.parametrize(
    "harm", ["nothing", "torn line", "rows missing", "row lost", "foreign line", "other key", "no journal"]
)
def test_what_an_interruption_left_is_resumed_as_far_as_it_is_whole(
    harm: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "cat" / "bad.png").write_bytes(b"no picture")
    whole = pack(root, tmp_path / "whole", on_error="skip")
    with pytest.raises(StoppedError):
        pack(root, tmp_path, stop_at(25), on_error="skip")
    assert not list((tmp_path / "packed").glob("*.safetensors"))
    (journal,), (partial,) = (list((tmp_path / "packed").glob(f"*.{end}")) for end in ("journal", "partial"))
    lines = journal.read_bytes().splitlines(keepends=True)
    left = len(lines) - 1
    assert left >= 20
    row = 3 * SIDE * SIDE
    if harm == "torn line":
        journal.write_bytes(b"".join(lines)[:-5])
        left -= 1
    elif harm == "rows missing":
        kept = sum(not line.startswith(b"-") for line in lines[1:11])
        os.truncate(partial, pack_file.HEADER + kept * row + 1)
        left = 10
    elif harm == "row lost":  # as after a power cut
        with partial.open("r+b") as file:
            file.seek(pack_file.HEADER)
            file.write(bytes(row))
        left = 0
    elif harm == "foreign line":
        journal.write_bytes(b"".join([*lines[:6], b"\x00\xff\n", *lines[6:]]))
        left = 5
    elif harm == "other key":
        journal.write_bytes(b"".join([b"0 0\n", *lines[1:]]))
        left = 0
    elif harm == "no journal":
        journal.unlink()
        left = 0
    seen: list[int] = []
    assert (
        pack(root, tmp_path, lambda done, total: seen.append(done), on_error="skip").read_bytes() == whole.read_bytes()
    )
    assert seen == list(range(left, 47))
    assert not journal.exists()
    assert not partial.exists()


def test_a_few_pictures_per_core_are_ahead_of_those_written(root: Path) -> None:
    names, read, one_more = [str(number) for number in range(500)], list[str](), threading.Condition()
    content = next((root / "cat").iterdir()).read_bytes()

    def reader(name: str) -> bytes:
        with one_more:
            read.append(name)
            one_more.notify()
        return content

    listing = pictures.Listing(root, names, torch.zeros(500), reader)
    stream = pictures.decoded([(listing, name) for name in names], side=4, max_pixels=10**6, threads=2)
    for _ in range(10):
        next(stream)
    # Ten pictures are of the second turn; behind it two threads are ahead by so many turns each, and then they rest.
    begun = (2 + 2 * pictures.AHEAD) * pictures.TURN
    with one_more:
        assert one_more.wait_for(lambda: len(read) >= begun, timeout=60)
        assert not one_more.wait(timeout=0.2)
    stream.close()
    assert sorted(map(int, read)) == list(range(begun))


def test_what_a_kill_left_beside_a_finished_pack_is_removed_by_the_next_call(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = pack(root, tmp_path)
    (root / "cat" / "new.png").write_bytes(next((root / "cat").iterdir()).read_bytes())
    monkeypatch.setattr(packed, "sync_folder", stopped)
    with pytest.raises(StoppedError):
        pack(root, tmp_path)
    monkeypatch.undo()
    whole = next(path for path in stale.parent.glob("*.safetensors") if path != stale)
    assert whole.with_name(f"{whole.name}.journal").exists()
    assert pack(root, tmp_path) == whole
    assert [path.name for path in stale.parent.iterdir() if not path.name.startswith(".")] == [whole.name]


def test_what_the_machine_does_wrong_is_no_fault_of_a_picture(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes
    for error in (
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.EIO, "Input/output error"),
        MemoryError(),
    ):

        def failing(path: Path, error: Exception = error) -> bytes:
            if path.name.startswith("7ü"):
                raise error
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", failing)
        shown = refusal(root, tmp_path, on_error="skip")
        assert ".png could not be read, for the machine failed (" in shown
        assert not list((tmp_path / "packed").glob("*.safetensors"))
    monkeypatch.undo()
    assert_equal(load(root, tmp_path / "elsewhere", on_error="skip"), load(root, tmp_path, on_error="skip"))


def test_two_processes_do_not_pack_the_same_at_once(root: Path, tmp_path: Path) -> None:
    shown: list[str] = []

    def progress(done: int, total: int) -> None:
        if done == 5:
            shown.append(refusal(root, tmp_path))

    pack(root, tmp_path, progress)
    assert shown == [f"Another process packs the pictures of {root}: wait for it, or stop it first."]


def test_packing_a_folder_that_has_changed_meanwhile_leaves_the_pack_under_way_alone(
    root: Path, tmp_path: Path
) -> None:
    shown: list[str] = []

    def progress(done: int, total: int) -> None:
        if done == 5:
            first = next(root.rglob("*.png"))
            shutil.copy(first, first.with_name("one more.png"))
            shown.append(refusal(root, tmp_path))

    path = pack(root, tmp_path, progress)
    assert shown == [f"Another process packs the pictures of {root}: wait for it, or stop it first."]
    pack_file.verify(path)


def test_a_disk_without_room_is_refused_in_advance_and_one_that_fills_up_is_resumed(
    root: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has room for 1.0 MB, but the pack needs 33.8 MB: make room" in refusal(root, small_disk, stored=500)
    room = shutil.disk_usage(small_disk)
    other = small_disk / "other"
    other.write_bytes(bytes(700_000))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: room)
        assert "could not be packed (no space left): make room" in refusal(root, small_disk, stored=64)
    assert not list((small_disk / "packed").glob("*.safetensors"))
    other.unlink()
    seen: list[int] = []
    path = pack(root, small_disk, lambda done, total: seen.append(done), stored=64)
    assert seen[0] >= 10
    pack_file.verify(path)


def test_a_place_that_cannot_be_written_to_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert refusal(root, tmp_path / "file").startswith(f"{tmp_path / 'file' / 'packed'}/folder-8-")


def test_a_folder_without_the_right_to_write_is_named(root: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is read-only for root")
    (tmp_path / "fixed").mkdir(mode=0o500)
    assert "could not be packed (Permission denied)" in refusal(root, tmp_path / "fixed")


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_a_flipped_pixel_is_found_and_its_picture_named(root: Path, tmp_path: Path) -> None:
    path = pack(root, tmp_path)
    for row in (44, 40, 0):  # the first one is named
        flip(path, pack_file.HEADER + row * 3 * SIDE * SIDE + 5)
        folder = folder_of(root)
        found = catalog.find("folder", folder).pictures(tmp_path)  # type: ignore[misc]
        names = [*found["train"].names, *found["test"].names]
        with pytest.raises(UserError) as caught:
            pack_file.verify(path)
        assert f"the pixels of {names[row]} have changed" in str(caught.value)


@pytest.mark.parametrize("place", ["header", "labels", "end", "key"])
def test_a_flipped_byte_elsewhere_is_found_before_an_image_is_used(place: str, root: Path, tmp_path: Path) -> None:
    path = pack(root, tmp_path)
    content = path.read_bytes()
    end = pack_file.HEADER + 45 * 3 * SIDE * SIDE
    flip(path, {"header": 12, "labels": end + 3, "end": len(content) - 1, "key": content.index(b"place") + 12}[place])
    for use in (lambda: load(root, tmp_path), lambda: pack_file.verify(path), lambda: pack(root, tmp_path)):
        with pytest.raises(UserError, match=r"is no pack of ssl_bench or is damaged \(.*remove it and pack"):
            use()


@pytest.mark.parametrize("kind", ["cut", "longer", "empty", "text", "foreign", "nested"])
def test_a_file_that_is_no_whole_pack_is_refused(kind: str, root: Path, tmp_path: Path) -> None:
    path = pack(root, tmp_path)
    content = path.read_bytes()
    if kind == "foreign":
        from safetensors.torch import save_file

        save_file({"train.images": torch.zeros(3)}, path)
    else:
        nested = content[: pack_file.LENGTH].ljust(pack_file.HEADER, b"[") + content[pack_file.HEADER :]
        wrong = {"cut": content[:-100], "longer": content + b"x", "empty": b"", "text": b"x" * 9999, "nested": nested}
        path.write_bytes(wrong[kind])
    for use in (lambda: load(root, tmp_path), lambda: pack_file.verify(path)):
        with pytest.raises(UserError, match=r"is no pack of ssl_bench or is damaged \(.*remove it and pack"):
            use()


def test_a_pack_under_anothers_name_is_not_used(root: Path, tmp_path: Path) -> None:
    path = pack(root, tmp_path)
    copy = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    other = pack(copy, tmp_path)
    shutil.copyfile(path, other)
    with pytest.raises(UserError, match="it is of other pictures"):
        load(copy, tmp_path)
