"""Where the recorder sends each epoch's figures, beside the files that every run leaves behind."""

from collections.abc import Mapping
from pathlib import Path

Results = Mapping[str, Mapping[str, float | None]]  # network → protocol → percent


class Logger:
    """Writes nothing: ``logger=none``."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of one epoch (``figures["epoch"]``) after ``step`` optimiser steps; steps ascend."""

    def log_results(self, results: Results, picture: Path) -> None:
        """The final table and the picture, after the last epoch."""

    def close(self) -> None:
        """Write out what is buffered."""
