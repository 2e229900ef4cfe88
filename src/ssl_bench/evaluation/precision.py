"""Float32 that is float32: evaluation must not depend on the precision a training run has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Within, float32 products use float32 throughout; autocast and the ambient matmul precision come back afterwards."""
    with torch.autocast(device.type, enabled=False):
        backends = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)
        if all(hasattr(backend, "fp32_precision") for backend in backends):
            before = [backend.fp32_precision for backend in backends]
            for backend in backends:
                backend.fp32_precision = "ieee"
            try:
                yield
            finally:
                for backend, precision in zip(backends, before, strict=True):
                    backend.fp32_precision = precision
        else:  # torch < 2.9 has one setting for all backends
            ambient = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(ambient)
