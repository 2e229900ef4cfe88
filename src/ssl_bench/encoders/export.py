"""A trained encoder as another library loads it, checked by that library before anything is left behind."""

import io
import logging
import os
import shutil
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from ssl_bench.augment.views import CleanView
from ssl_bench.encoders import formats
from ssl_bench.encoders.card import card
from ssl_bench.encoders.formats import Subject
from ssl_bench.encoders.loading import load
from ssl_bench.entry import take_over
from ssl_bench.errors import UserError
from ssl_bench.evaluation.precision import full_float32
from ssl_bench.files import reason, require_writable
from ssl_bench.results.encoder import Encoder
from ssl_bench.results.record import Record
from ssl_bench.results.weights import LoadedEncoder, sha256

TOLERANCE = 1e-5  # of the largest feature, or of 1 where that is less
BATCHES = (5, 1)  # images of the batches that are compared


@dataclass(frozen=True)
class Difference:
    """By how much the features of the library differ from ours."""

    largest: float
    feature: float  # the largest one of ours

    @property
    def fine(self) -> bool:
        return self.largest <= TOLERANCE * max(1.0, self.feature)


def export(run_or_file: Path, settings: Mapping[str, Any]) -> Difference:
    """Write the folder ``out``; UserError, and no folder, where the library does not give our features.

    settings: those of export.yaml.
    """
    out, to = Path(settings["out"]), settings["to"]
    require_writable(out.parent, f"out={out}")
    show = partial(Console().print, highlight=False, markup=False, soft_wrap=True)
    encoder, clean, _ = load(run_or_file, settings, show)
    subject = Subject(encoder, clean, preprocessing=settings["preprocessing"], opset=settings["opset"])
    chosen = formats.FORMATS[to]
    chosen.require(subject)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    before = take_over(_interrupt)
    try:
        temporary.mkdir()
        difference = _write(chosen, subject, temporary, to)
        text = card(subject, chosen, to, _record(encoder), sha256(encoder.file))
        (temporary / "README.md").write_text(text, encoding="utf-8")
        temporary.rename(out)
    except OSError as error:
        raise UserError(f"out={out} could not be written ({reason(error)}): choose another folder.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for number, handle in before.items():
            signal.signal(number, handle)
    show(
        f"{out}: {encoder.network['name']} for {to}, features within {difference.largest:.1g} of load_encoder's "
        f"(the largest is {difference.feature:.3g})"
    )
    return difference


def _interrupt(*_: object) -> None:
    """Stop by SIGTERM as by Ctrl-C, so that nothing is left."""
    raise KeyboardInterrupt


def _write(chosen: formats.Format, subject: Subject, folder: Path, to: str) -> Difference:
    """Write the files and have the library load them again; UserError where it fails or gives other features."""
    try:
        with _quiet():
            chosen.write(subject, folder)
            difference = compared(chosen, subject, folder)
    except (UserError, OSError):
        raise
    except Exception as error:  # libraries fail in any way
        text = " ".join(str(error).split())[:200]
        raise UserError(f"to={to} cannot take {subject.network['name']} ({type(error).__name__}: {text}).") from error
    if not difference.fine:
        raise UserError(
            f"{to} loads the encoder, but its features differ from load_encoder's by up to {difference.largest:.2g}, "
            f"where the largest feature is {difference.feature:.3g} and {TOLERANCE:g} of it is allowed: nothing was "
            "written."
        )
    return difference


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep away what other libraries show of their own work: warnings, bars and logs."""
    logging.disable()
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@torch.no_grad()
def compared(chosen: formats.Format, subject: Subject, folder: Path) -> Difference:
    """The library's features beside ours, of batches of several sizes; by the very lines that the card shows."""
    ours = Encoder(CleanView(**subject.clean), subject.backbone).eval()
    load, use = chosen.lines(subject)
    names: dict[str, Any] = {"folder": str(folder)}
    exec(load, names)
    largest = scale = 0.0
    with full_float32(torch.device("cpu")):
        for images in _images(subject):
            names["images"] = images if chosen.takes_raw(subject) else ours.clean(images)
            exec(use, names)
            expected = ours(images)
            if not expected.isfinite().all():
                raise UserError("its features are infinite or not a number: the network has diverged.")
            found = torch.as_tensor(names["features"])
            if found.shape != expected.shape:
                raise UserError(
                    f"the features that were loaded back have shape {list(found.shape)} where {list(expected.shape)} "
                    "is wanted: nothing was written."
                )
            error = (found - expected).abs().nan_to_num(torch.inf)
            largest, scale = max(largest, error.max().item()), max(scale, expected.abs().max().item())
    return Difference(largest, scale)


def _images(subject: Subject) -> list[Tensor]:
    """Batches of random images, float 0–1, whose sides differ from the network's and from one another."""
    generator = torch.Generator().manual_seed(0)
    side, channels = subject.clean["size"], int(subject.network["channels"])
    shapes = [(BATCHES[0], channels, side + 4, side + 9), (BATCHES[1], channels, side, side)]
    return [torch.rand(*shape, generator=generator) for shape in shapes]


def _record(encoder: LoadedEncoder) -> Record | None:
    """The record beside a run's encoder; None where there is none."""
    path = encoder.file.with_name("record.json")
    try:
        return Record.read(path, encoder.fingerprint or "") if path.exists() and encoder.fingerprint else None
    except ValueError as error:
        raise UserError(f"{path} is no finished record ({error}): mend it, or export the encoder without it.") from None
