"""Files are there whole or not at all, on real disks that refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from ssl_bench.callbacks.checkpointer import WholeCheckpointIO
from ssl_bench.errors import UserError
from ssl_bench.files import require_writable, write_text, write_together, write_whole


def test_no_space_left_keeps_what_was_there_and_shows_it(small_disk: Path) -> None:
    path = small_disk / "state.ckpt"
    write_whole(path, lambda temporary: torch.save({"good": torch.ones(10)}, temporary))
    saves = (
        lambda: WholeCheckpointIO().save_checkpoint({"large": torch.zeros(1 << 20)}, path),
        lambda: write_whole(path, lambda temporary: temporary.write_bytes(bytes(1 << 22))),
    )
    for save in saves:
        with pytest.raises(UserError, match=r"state\.ckpt could not be saved \(no space left\).*Make room"):
            save()
        assert torch.equal(torch.load(path, weights_only=True)["good"], torch.ones(10))
        assert os.listdir(small_disk) == ["state.ckpt"]


def test_a_full_disk_is_refused_before_hours_of_work(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "large").write_bytes(bytes(1 << 21))
    with pytest.raises(UserError, match=r"runs_dir=x cannot be written \(no space left\)"):
        require_writable(small_disk, "runs_dir=x")


WRITE_BEYOND_THE_LIMIT = """
import resource, signal, sys
from pathlib import Path
from ssl_bench.errors import UserError
from ssl_bench.files import write_text

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    write_text(Path(sys.argv[1]), "x" * (1 << 20))
except UserError as error:
    sys.exit(7 if "no space left" in str(error) else 8)
"""


def test_a_file_that_the_system_cuts_short_is_not_put_in_place(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_text(path, "before")
    assert subprocess.run([sys.executable, "-c", WRITE_BEYOND_THE_LIMIT, path]).returncode == 7
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_text(path, "before")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["record.json"]


def test_the_temporary_file_stands_in_the_same_folder_under_the_same_suffix(tmp_path: Path) -> None:
    seen: list[Path] = []

    def write(temporary: Path) -> None:
        seen.append(temporary)
        temporary.write_text("x")

    write_whole(tmp_path / "new" / "picture.png", write)
    assert seen[0].parent == tmp_path / "new"
    assert seen[0].suffix == ".png"
    assert seen[0].name != "picture.png"


@pytest.mark.parametrize("moment", range(7))
def test_files_that_belong_together_are_never_old_beside_new(moment: int, tmp_path: Path) -> None:
    """Whatever step fails; a failure at a step leaves what a kill there would."""
    paths = [tmp_path / "features.npy", tmp_path / "features.txt"]
    for path in paths:
        write_text(path, "old")
    steps = 0

    class KilledError(BaseException):
        pass

    def step(call: Callable[..., object]) -> Callable[..., object]:
        def taken(*arguments: object, **more: object) -> object:
            nonlocal steps
            steps += 1
            if steps > moment:
                raise KilledError
            return call(*arguments, **more)

        return taken

    with pytest.MonkeyPatch.context() as patch, suppress(KilledError):
        for place, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "write_text")):
            patch.setattr(place, name, step(getattr(place, name)))
        write_together({path: lambda temporary: temporary.write_text("new") for path in paths})
    left = {path.read_text() for path in paths if path.exists()}
    assert len(left) <= 1
    if moment < 4:  # two are written and two made durable before anything changes
        assert [path.read_text() for path in paths] == ["old", "old"]


def test_files_that_belong_together_are_all_replaced(tmp_path: Path) -> None:
    paths = [tmp_path / "features.npy", tmp_path / "features.txt"]
    for text in ("old", "new"):
        write_together({path: lambda temporary, text=text: temporary.write_text(text) for path in paths})
        assert [path.read_text() for path in paths] == [text, text]
    assert sorted(tmp_path.iterdir()) == paths


def test_a_link_is_replaced_and_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to(tmp_path / "target.csv")
    write_text(tmp_path / "link.csv", "after")  # as of a folder of runs that was copied as links
    assert (tmp_path / "link.csv").read_text() == "after"
    assert (tmp_path / "target.csv").read_text() == "before"
    for path, what in ((tmp_path, "a folder"), (Path(os.devnull), "no file"), (Path(), "a folder")):
        with pytest.raises(UserError, match=f"is {what}: name a file to write"):
            write_text(path, "x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is no file"):
        write_text(tmp_path / "pipe", "x")


def test_bytes_of_a_path_that_are_no_text_are_read_back(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", json.dumps({"init": "w\udcff.pt", "名": "é"}, ensure_ascii=False))
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"init": "w\udcff.pt", "名": "é"}
