"""python -m ssl_bench export: a trained encoder as another library loads it.

RUN_OR_FILE is what python -m ssl_bench evaluate takes. The files are loaded back by the library itself; unless it gives
the features of load_encoder, the command fails and leaves nothing. README.md beside them is a model card with the
metadata of the Hugging Face Hub and the lines of Python that load the encoder.

  safetensors   for ssl_bench.load_encoder
  torchvision   a state dict for torchvision's ResNets of width 64
  timm          a folder for timm.create_model; ResNets as published (stem=imagenet, width=64) and timm's own networks
  onnx          one file for ONNX Runtime, with any number of images; takes every network
  transformers  a folder for AutoModel; the networks that timm takes
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssl_bench.conditions import require_libraries
from ssl_bench.config.settings import positional, read_settings, settings_text
from ssl_bench.entry import importing, run_command
from ssl_bench.errors import UserError

FILE = "export.yaml"
LIBRARIES = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "timm": ("timm",),
    "transformers": ("timm", "transformers"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the arguments, then export; returns the exit status."""

    def work(arguments: list[str]) -> None:
        (encoder,), rest = positional(arguments, "a run's folder or a file of weights")
        settings = read_settings(FILE, rest)
        if settings["to"] is None:
            raise UserError("set the library that is to load the encoder, as in to=onnx; --help lists them.")
        require_libraries(f"to={settings['to']}", LIBRARIES.get(settings["to"], ()), "export")
        if not Path(encoder).exists():
            raise UserError(f"{encoder} does not exist: give a finished run's folder or a file of weights.")
        if Path(settings["out"]).exists():
            raise UserError(f"out={settings['out']} exists: choose another folder, or remove it first.")
        for option in ("preprocessing", "opset"):
            if settings[option] and settings["to"] != "onnx":
                raise UserError(f"{option} makes no sense with to={settings['to']}: it is for to=onnx.")
        with importing():
            from ssl_bench.encoders.export import export  # PyTorch takes seconds, a mistake is answered before

        export(Path(encoder), settings)

    return run_command(arguments, help_text, work, interrupted="interrupted; nothing was written.")


def help_text() -> str:
    """Usage, what it does, options."""
    lines = ["python -m ssl_bench export RUN_OR_FILE to=... [key=value ...]", "", str(__doc__).partition("\n\n")[2]]
    return "\n".join([*lines, "Options, with the allowed values:", *settings_text(FILE)])
