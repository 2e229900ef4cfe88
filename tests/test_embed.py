"""Features of a folder of pictures: those of the encoder on each alone, in order, whole or not at all."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from at_once import at_once
from ssl_bench import load_encoder
from ssl_bench.cli import embed as command
from ssl_bench.data.readers import pictures as readers
from ssl_bench.encoders import embed
from ssl_bench.nn.backbone import build_backbone
from ssl_bench.results.encoder import save_encoder

SHAPES = {"b.png": (16, 16), "a/tall ü.png": (60, 21), "a/wide.png": (23, 90), "a/big.png": (120, 100), "c.png": (5, 7)}


def encoder(path: Path, *, channels: int = 3) -> Path:
    network = {"name": "resnet18", "stem": "small", "width": 4, "channels": channels}
    clean = {"size": 16, "crop": 0.8, "mean": [0.3] * channels, "std": [0.4] * channels}
    torch.manual_seed(0)
    save_encoder(path, build_backbone(**network)[0], {"backbone": network, "clean": clean})
    return path


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], 2).astype(np.uint8)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five pictures of different shapes; the working folder is the one above."""
    monkeypatch.chdir(tmp_path)
    encoder(tmp_path / "e.safetensors")
    for name, (height, width) in SHAPES.items():
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth(height, width)).save(path)
    return tmp_path / "pictures"


def embedded(*options: Any) -> int:
    return command.main([str(option) for option in options])


def alone(file: str, picture: np.ndarray) -> np.ndarray:
    images = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        features: torch.Tensor = load_encoder(file)(images)[0]
    return features.numpy()


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_every_picture_gets_what_the_encoder_makes_of_it_alone(pictures: Path, batch_size: int) -> None:
    assert embedded("e.safetensors", pictures, f"batch_size={batch_size}") == 0
    features, names = np.load("features.npy"), Path("features.txt").read_text(encoding="utf-8").splitlines()
    assert (features.dtype, features.shape) == (np.float32, (5, 32))
    assert names == sorted(SHAPES)
    for name, row in zip(names, features, strict=True):
        np.testing.assert_allclose(row, alone("e.safetensors", smooth(*SHAPES[name])), rtol=1e-5, atol=1e-6)


def test_features_are_float32_whatever_the_user_has_set(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    write = embed._Embedding._write_batch

    def observed(self: Any, file: Any, batch: Any) -> int:
        seen.append(torch.get_float32_matmul_precision())
        return write(self, file, batch)

    monkeypatch.setattr(embed._Embedding, "_write_batch", observed)
    torch.set_float32_matmul_precision("high")
    try:
        assert embedded("e.safetensors", pictures) == 0
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {"highest"}


def test_pictures_are_seen_as_a_viewer_shows_them(pictures: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # turn by 90° clockwise
    Image.fromarray(smooth(20, 40)).save(pictures / "exif.png", exif=turned)
    Image.fromarray(smooth(20, 40)[..., 0]).save(pictures / "gray.png")
    assert embedded("e.safetensors", pictures) == 0
    rows = dict(zip(Path("features.txt").read_text().splitlines(), np.load("features.npy"), strict=True))
    shown = {
        "exif.png": np.rot90(smooth(20, 40), -1),
        "gray.png": np.repeat(smooth(20, 40)[..., :1], 3, 2),
    }
    for name, picture in shown.items():
        np.testing.assert_allclose(rows[name], alone("e.safetensors", picture), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"text", "half"])
def test_a_broken_picture_stops_or_is_left_out_by_name(
    pictures: Path, content: bytes | str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embedded("e.safetensors", pictures, "out=whole.npy") == 0
    whole = (pictures / "a" / "big.png").read_bytes()
    broken = whole[: len(whole) // 2] if isinstance(content, str) else content
    (pictures / "a" / "broken.png").write_bytes(broken)
    capsys.readouterr()
    assert embedded("e.safetensors", pictures) == 2
    shown = capsys.readouterr().err
    assert "a/broken.png cannot be read as a picture" in shown
    assert "on_error=skip" in shown
    assert shown.count("\n") == 1
    assert not list(Path().glob(".features*")) + list(Path().glob("features*"))
    assert embedded("e.safetensors", pictures, "on_error=skip", "batch_size=2") == 0
    shown = capsys.readouterr().out
    assert "left out: " in shown
    assert "a/broken.png" in shown
    assert "(1 left out)" in shown
    assert Path("features.txt").read_text(encoding="utf-8").splitlines() == sorted(SHAPES)
    np.testing.assert_allclose(np.load("features.npy"), np.load("whole.npy"), rtol=1e-5, atol=1e-6)


def test_a_failure_leaves_the_files_of_before(pictures: Path) -> None:
    assert embedded("e.safetensors", pictures) == 0
    before = {name: Path(name).read_bytes() for name in ("features.npy", "features.txt")}
    (pictures / "z.png").write_bytes(b"broken, and the last")
    assert embedded("e.safetensors", pictures, "batch_size=1") == 2
    assert {name: Path(name).read_bytes() for name in before} == before


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
LOST = RuntimeError("CUDA error: uncorrectable ECC error encountered")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FULL, "embedding takes more memory than there is (2.00 GiB were asked for): lower batch_size."),
        (LOST, "the GPU failed or was taken away (uncorrectable ECC error encountered); run the same command again."),
    ],
)
def test_a_full_or_lost_card_is_a_sentence_and_nothing_is_written(
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    sentence: str,
) -> None:
    def fails(*_: object) -> int:
        raise error

    monkeypatch.setattr(embed._Embedding, "_write_batch", fails)
    assert embedded("e.safetensors", pictures) > 0
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(Path().glob("features*"))


def test_a_text_of_ones_own_beside_the_features_is_kept(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.txt").write_text("mine", encoding="utf-8")
    assert embedded("e.safetensors", pictures, "out=labels.npy") == 2
    assert "labels.txt, which is to hold the names, is there already: move it away" in capsys.readouterr().err
    assert Path("labels.txt").read_text(encoding="utf-8") == "mine"


def test_where_no_picture_can_be_read_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"nothing")
    options = (tmp_path / "pictures", f"out={tmp_path / 'f.npy'}", "on_error=skip")
    assert embedded(encoder(tmp_path / "e.safetensors"), *options) == 2
    assert "None of the 1 pictures" in capsys.readouterr().err
    assert not list(tmp_path.glob("*f*.npy"))


def test_large_and_very_long_pictures_are_broken(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = Image.MAX_IMAGE_PIXELS
    assert embedded("e.safetensors", pictures, "max_pixels=11999") == 2
    assert "big.png cannot be read as a picture: it has more than 11999 pixels" in capsys.readouterr().err
    Image.fromarray(np.zeros((1, 400, 3), np.uint8)).save(pictures / "long.png")
    assert embedded("e.safetensors", pictures, "max_pixels=12000") == 2
    assert "long.png cannot be read as a picture: at 400 × 1 pixels it is too long" in capsys.readouterr().err
    assert limits == Image.MAX_IMAGE_PIXELS


def test_a_gray_network_takes_gray_pictures_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(smooth(20, 40)[..., 0]).save(pictures / "gray.png")
    options = (encoder(tmp_path / "e.safetensors", channels=1), pictures, f"out={tmp_path / 'f.npy'}")
    assert embedded(*options) == 0
    expected = alone(str(tmp_path / "e.safetensors"), smooth(20, 40)[..., :1])
    np.testing.assert_allclose(np.load(tmp_path / "f.npy")[0], expected, rtol=1e-5, atol=1e-6)
    Image.fromarray(smooth(20, 40)).save(pictures / "colour.png")
    assert embedded(*options) == 2
    assert "colour.png cannot be read as a picture: it is in colour" in capsys.readouterr().err


def test_foreign_weights_need_a_size(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(build_backbone("resnet18", stem="cifar", width=4, channels=3)[0].state_dict(), "w.pth")
    assert embedded("w.pth", pictures, "size=24") == 2
    assert "w.pth does not show its stem" in capsys.readouterr().err
    assert embedded("w.pth", pictures, "stem=cifar") == 2
    assert "w.pth does not state for images of which size it is: set size" in capsys.readouterr().err
    assert embedded("w.pth", pictures, "stem=cifar", "size=24", "crop=0.75") == 0
    assert "at 24 pixels" in (shown := capsys.readouterr().out)
    assert "ImageNet's" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be made there")
@pytest.mark.parametrize(
    ("name", "line"), [("a\nb.png", b"a b.png"), ("a\u2028b.png", b"a b.png"), ("\udcff.png", b"\xff.png")]
)
def test_any_name_is_one_line(pictures: Path, name: str, line: bytes) -> None:
    try:
        (pictures / "b.png").rename(pictures / name)
    except OSError:
        pytest.skip("this system does not take such names")
    assert embedded("e.safetensors", pictures) == 0
    lines = Path("features.txt").read_bytes().splitlines()
    assert line in lines
    assert len(lines) == len(np.load("features.npy")) == len(SHAPES)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["e.safetensors"], "argument 2 must be a folder of pictures"),
        (["e.safetensors", "size=3"], "argument 2 must be a folder of pictures, and size=3 is none"),
        (["e.safetensors", "nowhere"], "nowhere does not exist"),
        (["e.safetensors", "pictures", "sise=3"], "option sise is unknown; did you mean size?"),
        (["e.safetensors", "pictures", "crop=0"], "crop=0 is not allowed: crop is null or a number above 0"),
        (["e.safetensors", "pictures", "out=f.csv"], "out=f.csv must end in .npy"),
        (["e.safetensors", "pictures", "backbone=resnet18"], "states itself what network it holds: leave backbone out"),
        (["pictures", "pictures"], "pictures/encoder.safetensors does not exist"),
        (["e.safetensors", "e.safetensors"], "Cannot read e.safetensors"),
    ],
)
def test_a_wrong_option_is_answered_in_one_line(
    pictures: Path, options: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embedded(*options) == 2
    shown = capsys.readouterr().err
    assert part in shown
    assert shown.count("\n") == 1


def test_help_shows_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("RUN_OR_FILE FOLDER", "on_error=stop", "out=features.npy"))


def test_only_a_batch_and_the_next_are_held(pictures: Path) -> None:
    """What is read but not asked for yet: the pictures of two batches at most."""
    clean = load_encoder("e.safetensors").clean
    seen: list[Path] = []

    def see(path: Path, **_: Any) -> str:
        seen.append(path)
        return "not today"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "network_input", see)
        names = [str(number) for number in range(100)]
        reader = embed.read_in_batches(
            pictures,
            names,
            clean=clean,
            channels=3,
            batch_size=5,
            threads=2,
            max_pixels=10**6,  # type: ignore[arg-type]
        )
        assert [name for name, _ in next(reader)] == names[:5]
        assert len(seen) <= 10
        reader.close()
        assert len(seen) <= 10


def test_of_large_pictures_one_at_a_time_is_decoded(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = load_encoder("e.safetensors").clean
    seen: list[int] = []
    monkeypatch.setattr(embed, "native", at_once(embed.native, seen))
    names = list(SHAPES) * 10
    for large, most in ((1, 1), (1 << 24, 2)):
        monkeypatch.setattr(readers, "LARGE", large)
        seen.clear()
        list(
            embed.read_in_batches(
                pictures,
                names,
                clean=clean,  # type: ignore[arg-type]
                channels=3,
                batch_size=4,
                threads=2,
                max_pixels=10**8,
            )
        )
        assert (len(seen), max(seen)) == (len(names), most)


def test_the_header_is_numpys_and_keeps_its_length() -> None:
    assert len(embed.header(1, 512)) == len(embed.header(10**12, 512))
    data = embed.header(2, 3) + np.arange(6, dtype="<f4").tobytes()
    np.testing.assert_array_equal(np.load(io.BytesIO(data)), np.arange(6, dtype=np.float32).reshape(2, 3))
