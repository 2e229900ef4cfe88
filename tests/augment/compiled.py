"""Compile every kernel that ``fused.draw`` launches, without a GPU, and print what each takes as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ssl_bench.augment import fused
from ssl_bench.augment.draws import COLUMNS, ViewGroup

TYPES = {torch.uint8: "*u8", torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
GROUP = {"crop_scale": (0.2, 1.0), "crop_ratio": (0.75, 1.33), "blur_sigma": (0.1, 2.0), "solarize_threshold": 0.5}
PROBABILITIES = ("flip", "jitter", "brightness", "contrast", "saturation", "hue", "grayscale", "blur", "solarize")


class Launched:
    """Stands in for a kernel and keeps what it is launched with."""

    def __init__(self, kernel: Any, launches: list[Launched]) -> None:
        self.kernel = kernel
        self.launches = launches

    def __getitem__(self, grid: tuple[int, ...]) -> Launched:
        return self

    def __call__(self, *arguments: Any, num_warps: int, **constants: Any) -> None:
        self.arguments = dict(zip(self.kernel.arg_names, arguments, strict=False))
        self.constants = constants
        self.num_warps = num_warps
        self.launches.append(self)

    def compiled(self, capability: int) -> Any:
        names = self.kernel.arg_names
        signature = {name: "constexpr" if name in self.constants else typed(self.arguments[name]) for name in names}
        aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if signature[name][0] == "*"}
        source = ASTSource(self.kernel, signature, self.constants, aligned)
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": self.num_warps})


def typed(argument: Any) -> str:
    if isinstance(argument, torch.Tensor):
        return TYPES[argument.dtype]
    return "i32" if isinstance(argument, int) else "fp32"


def resources(launch: Launched, capability: int) -> dict[str, Any]:
    kernel = launch.compiled(capability)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        dump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        shown = subprocess.run([dump, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = {key: int(re.search(rf"{key.upper()}:(\d+)", shown.stdout)[1]) for key in ("reg", "stack", "local")}
    return {"name": launch.kernel.__name__, "capability": capability, "shared": kernel.metadata.shared, **found}


def main() -> None:
    launches: list[Launched] = []
    for name in ("_crop", "_color", "_blur"):
        setattr(fused, name, Launched(getattr(fused, name), launches))
    group = ViewGroup(count=2, size=224, **GROUP, **dict.fromkeys(PROBABILITIES, 0.5))
    images, statistics = torch.zeros(2, 3, 256, 256, dtype=torch.uint8), torch.ones(3)
    fused.draw(images, torch.zeros(2, 2, COLUMNS), group, statistics, statistics, torch.bfloat16)
    json.dump([resources(launch, capability) for launch in launches for capability in (80, 90)], sys.stdout)


if __name__ == "__main__":
    main()
