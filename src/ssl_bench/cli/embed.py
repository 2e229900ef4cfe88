"""python -m ssl_bench embed: features of every picture below a folder.

RUN_OR_FILE is what python -m ssl_bench evaluate takes. Two files are written, whole or not at all: float32 features
[M, F] as .npy, and the names of the M pictures below FOLDER as .txt, one per line in the same order. Every picture is
seen at its own size and shape as in evaluation: the shorter side resized, the centre cut out. They are read as they are
needed, so a folder may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench.config.options import leading, read_settings, settings_text
from ssl_bench.entry import answer
from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from ssl_bench.augment.views import CleanView

FILE = "embed.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the words, then embed; returns the exit status."""

    def work(words: list[str]) -> None:
        (encoder, folder), rest = leading(words, "a run's folder or a file of weights", "a folder of pictures")
        embed(Path(encoder), Path(folder), read_settings(FILE, rest))

    return answer(arguments, help_text, work, interrupted="interrupted; nothing was written.")


def help_text() -> str:
    """Usage, what it does, options."""
    lines = ["python -m ssl_bench embed RUN_OR_FILE FOLDER [key=value ...]", "", str(__doc__).partition("\n\n")[2]]
    return "\n".join([*lines, "Options, with the allowed values:", *settings_text(FILE)])


def embed(run_or_file: Path, folder: Path, settings: dict[str, Any]) -> None:
    """Write the features and the names; UserError for a wrong word, file or picture."""
    target = Path(settings["out"])
    if target.suffix != ".npy":
        raise UserError(f"out={target} is to end in .npy.")
    for path in (run_or_file, folder):
        if not path.exists():
            raise UserError(f"{path} does not exist: give a run's folder or a file of weights, then a folder.")

    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from ssl_bench.augment.views import CleanView
    from ssl_bench.data.readers.scan import pictures_below
    from ssl_bench.devices import resolve_device
    from ssl_bench.files import require_writable, write_together
    from ssl_bench.results.weights import open_encoder
    from ssl_bench.training.build import encoder_clean

    require_writable(target.parent, f"out={target}")
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    console = Console()

    def tell(sentence: str) -> None:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    encoder = open_encoder(
        run_or_file,
        name=settings["backbone"],
        stem=settings["stem"],
        width=None,
        prefix=settings["prefix"],
    )
    for clause in encoder.assumed:
        tell(f"assumed: {clause}")
    arguments, whose = encoder_clean(
        encoder, size=settings["size"], crop=settings["crop"], statistics="auto", dataset=None
    )
    encoder.require_size(arguments["size"])
    names, kept, skipped = list[str](), list[str](), list[str]()
    for name in pictures_below(folder):
        wrong = not_one_line(name)
        if wrong and settings["on_error"] == "stop":
            raise UserError(f"{wrong}: rename the file, or leave such out by on_error=skip.")
        if wrong:
            tell(f"left out: {wrong}")
        (skipped if wrong else names).append(name)
    if not names:
        raise UserError(f"No picture of {folder} has a name that can be listed.")
    tell(
        f"{len(names):,} pictures of {folder} through {encoder.network['name']} at {arguments['size']} pixels, "
        f"normalised by mean and standard deviation ({whose})"
    )
    device = resolve_device(settings["accelerator"])
    backbone = encoder.backbone.to(device)
    clean = CleanView(**arguments)

    def write(temporary: Path) -> None:
        bar = Progress(
            *("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
            console=console,
            disable=not console.is_terminal,
        )
        with temporary.open("wb") as file, bar, torch.no_grad():
            task = bar.add_task("embedding", total=len(names))
            seen = read_in_batches(
                folder,
                names,
                clean=clean,
                channels=encoder.channels,
                batch_size=settings["batch_size"],
                threads=torch.get_num_threads(),
                max_pixels=settings["max_pixels"],
            )
            width = 0
            for batch in seen:
                good = [(name, picture) for name, picture in batch if not isinstance(picture, str)]
                for name, wrong in batch:
                    if isinstance(wrong, str):
                        sentence = f"{folder / name} cannot be read as a picture: {wrong}"
                        if settings["on_error"] == "stop":
                            raise UserError(f"{sentence}; mend or remove it, or leave such out by on_error=skip.")
                        tell(f"left out: {sentence}")
                        skipped.append(name)
                if good:
                    images = torch.stack([picture for _, picture in good]).to(device)  # [n, C, S, S]
                    features = backbone(images.contiguous(memory_format=torch.channels_last)).float()  # [n, F]
                    if not kept:
                        width = features.shape[1]
                        file.write(header(len(names), width))
                    broken = [
                        name for (name, _), fine in zip(good, features.isfinite().all(1), strict=True) if not fine
                    ]
                    if broken:
                        raise UserError(f"The features of {folder / broken[0]} are infinite or not a number.")
                    file.write(features.cpu().numpy().astype("<f4", copy=False).tobytes())
                    kept.extend(name for name, _ in good)
                bar.advance(task, len(batch))
            if not kept:
                raise UserError(f"None of the {len(names)} pictures of {folder} can be read.")
            file.seek(0)
            file.write(header(len(kept), width))

    def write_names(temporary: Path) -> None:
        temporary.write_text("".join(f"{name}\n" for name in kept), encoding="utf-8")

    write_together({target: write, target.with_suffix(".txt"): write_names})
    left_out = f" ({len(skipped):,} left out)" if skipped else ""
    tell(f"{target}: features of {len(kept):,} pictures{left_out}, named in {target.with_suffix('.txt')}")


def not_one_line(name: str) -> str:
    """Why a name cannot stand in a list of names, one to a line of UTF-8 text; "" if it can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"The name {name!r} is not UTF-8, and the list of names would be"
    several = len(name.splitlines()) != 1
    return f"The name {name!r} takes several lines, and names are listed one per line" if several else ""


def header(rows: int, width: int) -> bytes:
    """What stands before float32 ``[rows, width]`` in a .npy; of the same length whatever ``rows`` is."""
    import numpy as np

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

    from ssl_bench.data.readers.pictures import large_ones_alone, limited

    turn = large_ones_alone(threads)

    def one(name: str) -> Tensor | str:
        return look(folder / name, clean=clean, channels=channels, max_pixels=max_pixels, turn=turn)

    with limited(max_pixels), ThreadPoolExecutor(threads) as pool:
        try:
            parts = [names[start : start + batch_size] for start in range(0, len(names), batch_size)]
            following = pool.map(one, parts[0])
            for number, part in enumerate(parts):
                current = following
                if number + 1 < len(parts):
                    following = pool.map(one, parts[number + 1])
                yield list(zip(part, current, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)


def look(
    path: Path,
    *,
    clean: CleanView,
    channels: int,
    max_pixels: int,
    turn: Callable[[int], AbstractContextManager[object]],
) -> Tensor | str:
    """The network's input ``[C, S, S]`` of a picture at its own size, or why it cannot be read."""
    from ssl_bench.data.readers.pictures import fault, opened

    def seen(image: Image) -> Tensor | str:
        with turn(image.width * image.height):
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

    try:
        return opened(path.read_bytes(), seen)
    # Decoders stumble over damaged files anywhere, with errors of every kind.
    except Exception as error:
        return fault(str(path), error, max_pixels)


def native(image: Image) -> Tensor:
    """The picture as a viewer shows it, u8 ``[3, H, W]``; raises what PIL raises."""
    import numpy as np
    import torch

    from ssl_bench.data.readers.pictures import in_colour, upright

    return torch.from_numpy(np.array(in_colour(upright(image)))).permute(2, 0, 1)
