"""Float32 that is float32: evaluation must not depend on the precision a training run has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Within, float32 products are float32 throughout; autocast and the ambient precision come back afterwards."""
    products: list[Any] = [getattr(torch.backends.mkldnn, "matmul", None), torch.backends.cuda.matmul]
    with torch.autocast(device.type, enabled=False):
        if all(hasattr(product, "fp32_precision") for product in products):
            before = [product.fp32_precision for product in products]
            for product in products:
                product.fp32_precision = "ieee"
            try:
                yield
            finally:
                for product, precision in zip(products, before, strict=True):
                    product.fp32_precision = precision
        else:  # torch < 2.9 has one setting for all
            ambient = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(ambient)
