"""Self-supervised image methods compared fairly; importing this does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_bench.report.runs import load_runs as load_runs
    from ssl_bench.results.encoder import load_encoder as load_encoder

__version__ = "0.1.0"
__all__ = ["__version__", "load_encoder", "load_runs"]


def __getattr__(name: str) -> Any:
    if name == "load_encoder":
        from ssl_bench.results.encoder import load_encoder

        return load_encoder
    if name == "load_runs":
        from ssl_bench.report.runs import load_runs

        return load_runs
    raise AttributeError(f"module 'ssl_bench' has no attribute {name!r}")
