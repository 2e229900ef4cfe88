"""Features of every picture below a folder, read as they are needed."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL.Image import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor, nn

from ssl_bench.augment.views import CleanView
from ssl_bench.data.readers.pictures import (
    fault,
    in_colour,
    large_ones_alone,
    limited,
    on_threads,
    open_picture,
    upright,
)
from ssl_bench.data.readers.scan import scan
from ssl_bench.devices import AGAIN, failures_named, resolve_device
from ssl_bench.encoders.loading import load
from ssl_bench.errors import UserError
from ssl_bench.evaluation.precision import full_float32
from ssl_bench.files import require_writable, write_together


@failures_named("embedding", "lower batch_size", AGAIN)
def embed(run_or_file: Path, folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the features and the names; settings: those of embed.yaml.

    Raises UserError for a wrong file or picture, too little memory, or a card that failed.
    """
    target = Path(settings["out"])
    require_writable(target.parent, f"out={target}")
    names = target.with_suffix(".txt")
    if names.exists() and not target.exists():
        raise UserError(f"{names}, which is to hold the names, is there already: move it away, or choose another out.")
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    work = _Embedding(run_or_file, folder, settings)
    write_together({target: work.write, names: work.write_names})
    left_out = f" ({work.skipped:,} left out)" if work.skipped else ""
    work.show(f"{target}: features of {len(work.kept):,} pictures{left_out}, named in {names}")


class _Embedding:
    """The encoder, the pictures that are to go through it, and those that have."""

    def __init__(self, run_or_file: Path, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self.console = Console()
        self.kept: list[str] = []
        self.skipped = 0
        self.encoder, arguments, whose = load(run_or_file, settings, self.show)
        self.names = scan(folder).names
        self.show(
            f"{len(self.names):,} pictures of {folder} through {self.encoder.network['name']} at {arguments['size']} "
            f"pixels, normalised by mean and standard deviation ({whose})"
        )
        self.device = resolve_device(settings["accelerator"])
        self.backbone: nn.Module = self.encoder.backbone.to(self.device)
        self.clean = CleanView(**arguments)

    def show(self, sentence: str) -> None:
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def _leave_out(self, why: str) -> None:
        self.skipped += 1
        self.show(f"left out: {why}")

    def write(self, temporary: Path) -> None:
        """Write the features of all pictures that can be read."""
        bar = Progress(
            *("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        with temporary.open("wb") as file, bar, torch.no_grad(), full_float32(self.device):
            task = bar.add_task("embedding", total=len(self.names))
            width = 0
            for batch in read_in_batches(
                self.folder,
                self.names,
                clean=self.clean,
                channels=self.encoder.channels,
                batch_size=self.settings["batch_size"],
                threads=torch.get_num_threads(),
                max_pixels=self.settings["max_pixels"],
            ):
                width = self._write_batch(file, batch) or width
                bar.advance(task, len(batch))
            if not self.kept:
                raise UserError(
                    f"None of the {len(self.names)} pictures of {self.folder} can be read: name a folder of pictures."
                )
            file.seek(0)
            file.write(header(len(self.kept), width))

    def _write_batch(self, file: IO[bytes], batch: Sequence[tuple[str, Tensor | str]]) -> int:
        """Write the features of the batch's good pictures; returns their width, 0 if there is none."""
        good = [(name, picture) for name, picture in batch if not isinstance(picture, str)]
        for name, wrong in batch:
            if isinstance(wrong, str):
                sentence = f"{self.folder / name} cannot be read as a picture: {wrong}"
                if self.settings["on_error"] == "stop":
                    raise UserError(f"{sentence}; mend or remove it, or leave such out by on_error=skip.")
                self._leave_out(sentence)
        if not good:
            return 0
        images = torch.stack([picture for _, picture in good]).to(self.device)  # [n, C, S, S]
        features = self.backbone(images.contiguous(memory_format=torch.channels_last)).float().cpu()  # [n, F]
        if not self.kept:
            file.write(header(len(self.names), features.shape[1]))
        broken = [name for (name, _), fine in zip(good, features.isfinite().all(1), strict=True) if not fine]
        if broken:
            raise UserError(
                f"The features of {self.folder / broken[0]} are infinite or not a number: the network has "
                "diverged, or its file is damaged."
            )
        file.write(features.numpy().astype("<f4", copy=False).tobytes())
        self.kept.extend(name for name, _ in good)
        return int(features.shape[1])

    def write_names(self, temporary: Path) -> None:
        lines = (" ".join(name.splitlines()) + "\n" for name in self.kept)  # a name may hold anything but / and \0
        temporary.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def header(rows: int, width: int) -> bytes:
    """The header of float32 ``[rows, width]`` in a .npy; of the same length whatever ``rows`` is."""

    written = BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(written, shape)  # padded, so that the first number may grow
    return written.getvalue()


def read_in_batches(
    folder: Path,
    names: Sequence[str],
    *,
    clean: CleanView,
    channels: int,
    batch_size: int,
    threads: int,
    max_pixels: int,
) -> Iterator[list[tuple[str, Tensor | str]]]:
    """Each name with the network's input ``[C, S, S]``, or with why the picture cannot be read; one batch ahead."""
    turn = large_ones_alone(threads)

    def one(name: str) -> tuple[str, Tensor | str]:
        return name, network_input(folder / name, clean=clean, channels=channels, max_pixels=max_pixels, turn=turn)

    with limited(max_pixels), closing(on_threads(one, names, threads, ahead=batch_size)) as found:
        while batch := list(itertools.islice(found, batch_size)):
            yield batch


def network_input(
    path: Path,
    *,
    clean: CleanView,
    channels: int,
    max_pixels: int,
    turn: Callable[[int], AbstractContextManager[object]],
) -> Tensor | str:
    """The network's input ``[C, S, S]`` of a picture at its own size, or why it cannot be read."""

    try:
        with open_picture(path.read_bytes()) as image, turn(image.width * image.height):
            picture = native(image)  # [3, H, W]
            short, long = sorted(picture.shape[1:])
            if long * clean.resized**2 > max_pixels * short:
                return f"at {long} × {short} pixels it is too long: resized, it has more than {max_pixels} pixels"
            if channels == 1:
                if bool((picture != picture[:1]).any()):
                    return "it is in colour, but the network takes gray pictures"
                picture = picture[:1]
            view: Tensor = clean(picture[None])[0]
            return view
    # Decoders stumble over damaged files anywhere, with errors of every kind.
    except Exception as error:
        return fault(str(path), error, max_pixels)


def native(image: Image) -> Tensor:
    """The picture as a viewer shows it, uint8 ``[3, H, W]``; raises what PIL raises."""
    return torch.from_numpy(np.array(in_colour(upright(image)))).permute(2, 0, 1)
