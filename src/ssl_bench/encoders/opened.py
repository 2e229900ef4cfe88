"""The encoder that ``embed`` and ``export`` are given, by the options that both have."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssl_bench.results.weights import Opened, open_encoder
from ssl_bench.training.build import encoder_clean


def opened_encoder(
    run_or_file: Path, settings: Mapping[str, Any], show: Callable[[str], object]
) -> tuple[Opened, dict[str, Any], str]:
    """The encoder, the arguments of its clean view, and whose mean and standard deviation these hold.

    What was assumed of a file that is not ours is shown. UserError for a wrong file, or a size that it does not take.
    """
    encoder = open_encoder(
        run_or_file,
        name=settings["backbone"],
        stem=settings["stem"],
        width=None,
        prefix=settings["prefix"],
        arguments=settings["arguments"] or None,
    )
    for clause in encoder.assumed:
        show(f"assumed: {clause}")
    clean, whose = encoder_clean(encoder, size=settings["size"], crop=settings["crop"], statistics="auto", dataset=None)
    encoder.require_size(clean["size"])
    return encoder, clean, whose
