"""Float32 that is float32: scores must not depend on the precision a training run or a user has chosen."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from operator import attrgetter
from typing import Any

import torch

# What torch 2.9 and later set the precision of, one by one.
OPERATIONS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Within, float32 products and convolutions are float32 throughout, neither TF32 nor bfloat16.

    Autocast and what the user has set come back afterwards. Torch has two sets of switches, refuses to read the older
    ones where the two contradict each other, and reads them itself: so both are set, and restored.
    """
    with ExitStack() as restored:

        def restore(set_to: Callable[[Any], object], read: Callable[[], Any]) -> None:
            with suppress(RuntimeError):  # they contradict each other already; the newer ones count
                restored.callback(set_to, read())

        operations = [attrgetter(name)(torch.backends) for name in OPERATIONS if _exists(name)]
        for operation in operations:
            restored.callback(setattr, operation, "fp32_precision", operation.fp32_precision)
        restore(
            lambda value: setattr(torch.backends.cudnn, "allow_tf32", value), lambda: torch.backends.cudnn.allow_tf32
        )
        restore(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        for operation in operations:
            operation.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield


def _exists(name: str) -> bool:
    try:
        return hasattr(attrgetter(name)(torch.backends), "fp32_precision")
    except AttributeError:
        return False
