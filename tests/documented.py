"""What README and docs/ show, run at smoke scale: ``python tests/documented.py [PAGE ...]`` in an empty folder.

One process runs all of it, since loading PyTorch takes longer than most of the commands. A run is a run of the digits
at ``scale=smoke``, and a sweep has two methods and one seed: those are the sizes that fit a test. A block of commands
that cannot be run has a comment in front of it, ``<!-- not run: reason -->``; its options are checked only. A block
with ``<!-- file: name -->`` is a file that commands use.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?^```(?P<kind>\S*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
PROCESS = [sys.executable, "-m", "ssl_bench"]
PROGRAM = ("python -m ssl_bench", "ssl-bench")
OWN = "SSL_BENCH_PATH"  # is read once, so that commands with it have a process of their own
SMALLER = {  # networks and images, in seconds instead of minutes
    "dataset.size=96": "dataset.size=32",
    "dataset.size=224": "dataset.size=160",
    "backbone.name=timm/vit_tiny_patch16_224": "backbone.name=timm/test_vit",
}
DIGITS = r"dataset=(?!folder|squares)\w+"  # other datasets have files that a test has not


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: str
    kind: str
    text: str
    mark: str  # of the comment in front of it

    @property
    def reason(self) -> str:
        """Why it is not run; empty where it is."""
        return self.mark.removeprefix("not run:").strip() if self.mark.startswith("not run:") else ""

    @property
    def file(self) -> str:
        """The file that it is; empty where it is none."""
        return self.mark.removeprefix("file:").strip() if self.mark.startswith("file:") else ""

    @property
    def commands(self) -> list[str]:
        """Lines without their comments; one that ends in a backslash goes on in the next."""
        lines = [re.sub(r"(^|\s)# .*$", "", line).strip() for line in self.text.replace("\\\n", " ").splitlines()]
        return [" ".join(line.split()) for line in lines if line]


def blocks() -> Iterator[Block]:
    """All of README and docs/, in their order."""
    for page in PAGES:
        for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
            yield Block(page.name, found["kind"], found["text"], found["mark"] or "")


def arguments(command: str) -> list[str] | None:
    """What follows ``python -m ssl_bench``; None for another program."""
    command = re.sub(rf"^{OWN}=\S+ ", "", command)
    for start in PROGRAM:
        if command == start or command.startswith(f"{start} "):
            return shlex.split(command.removeprefix(start))
    if command.startswith("torchrun "):
        return shlex.split(command.partition("-m ssl_bench")[2])
    return None


def small(given: list[str], run: str) -> list[str]:
    """The arguments at the size of a test; ``run``: the folder of a finished run."""
    overrides = [re.sub(r"^scale=\w+", "scale=smoke", re.sub(DIGITS, "dataset=digits", override)) for override in given]
    overrides = [SMALLER.get(override, override).replace("RUN_OR_FILE", run) for override in overrides]
    command = overrides[0] if overrides and re.fullmatch(r"[a-z]+", overrides[0]) else "run"
    if command == "check":
        return ["check", "learns", "method=simclr"] if "learns" in overrides else ["check", "method=clbo", "world=2"]
    if command == "bench":
        return ["bench", "knn", "size=small", "repeats=1"]
    if "-m" in overrides:  # two runs
        overrides = [
            re.sub(r"=(\w+),(\w+),.*", r"=\1,\2", re.sub(r"^seed=(\d).*", r"seed=\1", override))
            for override in overrides
        ]
    if command in ("sweep", "plan", "report") and overrides[1] != "wandb":
        overrides = [
            override for override in overrides if not override.startswith(("seeds=", "methods=", "datasets="))
        ] + ["seeds=0"]
        overrides += ["methods=clbo,byol"] if overrides[1] == "table3" else []
    if command == "evaluate":
        overrides += ["subset=64"]
    needs_scale = command in ("run", "evaluate", "sweep", "plan", "report") and "--help" not in overrides
    return overrides + ["scale=smoke"] * (needs_scale and "scale=smoke" not in overrides)


def prepare() -> str:
    """The files that the commands name; returns the folder of a finished run."""
    import numpy as np
    import timm
    import torch
    import torchvision
    from PIL import Image

    from ssl_bench.config.compose import compose
    from ssl_bench.training.run import run

    random = np.random.default_rng(0)
    for root in ("pictures", "others"):
        for number in range(60):
            folder = Path(root, f"class {number % 2}")
            folder.mkdir(parents=True, exist_ok=True)
            noise = random.integers(0, 80, (20, 20 + number % 7)) + 60 * (number % 2)  # gray, as the digits' network
            Image.fromarray(noise.astype(np.uint8)).save(folder / f"{number}.png")
    Path("experiments/table3").mkdir(parents=True)  # committed records, which a block of Python reads
    Path("experiments/table3/records").symlink_to(ROOT / "experiments" / "table3" / "records")
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), "resnet50.pth")
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), "vit.pth")
    return f"runs/{run(compose(['scale=smoke'])).fingerprint}"


def run_python(block: Block, run: str) -> None:
    """Run a block of Python, whose numbers are those that comments state; one marked as tested trains CLBO."""
    import torch

    names, printed = {"images": torch.rand(2, 1, 8, 8)}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(re.sub(r"runs/\w+", run, block.text), names)
    stated = re.findall(r"^print\(.*\)  # (\d+\.\d+)$", block.text, re.MULTILINE)
    if stated:
        found = [float(number) for number in printed.getvalue().split()]
        assert [f"{x:.{len(n.partition('.')[2])}f}" for x, n in zip(found, stated, strict=True)] == stated, found
    if block.mark == "tested":
        method, data, backbone = names["method"], names["data"], names["backbone"]
        assert method.student_steps > 0
        assert backbone(next(iter(data.test())).images.float()).shape[1] == 64


def check(given: list[str]) -> None:
    """Raise UserError for options that are not allowed."""
    from ssl_bench.config.compose import compose
    from ssl_bench.config.parse import starting_points
    from ssl_bench.page import contents
    from ssl_bench.sweep import request

    if given[:1] == ["sweep"]:
        request.read(given[1:])
    elif given[:1] == ["page"]:
        contents.request(given[1:])
    elif given[:1] != ["report"]:  # of the dashboard, which is asked for without a network on the same page
        compose(
            list(
                starting_points(override for override in given if override != "-m" and not override.startswith("hydra"))
            )
        )


def main(pages: Sequence[str]) -> int:
    """Run what is on ``pages``, or on all without any; returns how many blocks or commands failed."""
    from ssl_bench.__main__ import main as program

    if any(Path().iterdir()):  # what the commands leave behind would be taken for files of the project
        print("run this in an empty folder.", file=sys.stderr)
        return 2
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    run = prepare()
    failed, done = [], set()
    for block in blocks():
        if pages and block.page not in pages:
            continue
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            try:
                run_python(block, run)
            except Exception:
                traceback.print_exc()
                failed.append(f"{block.page}: {block.text}")
        for command in block.commands if block.kind == "bash" else []:
            given = arguments(command)
            if given is None:
                continue
            if block.reason:
                check(given)
                continue
            overrides = small(given, run)
            own = re.match(rf"{OWN}=(\S+)", command)
            if (own and own[1], *overrides) in done:
                continue
            done.add((own and own[1], *overrides))
            print(f"\n$ python -m ssl_bench {shlex.join(overrides)}", flush=True)
            if subprocess.call(PROCESS + overrides, env=os.environ | {OWN: own[1]}) if own else program(overrides):
                failed.append(f"{block.page}: {command}\n    as {shlex.join(overrides)}")
    print(*failed, sep="\n", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
