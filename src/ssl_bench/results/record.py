"""What one run leaves behind for tables and for those who doubt them."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from copy import copy
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import ssl_bench
from ssl_bench.files import write_text
from ssl_bench.results.fingerprint import fingerprint

PROJECTOR = "projector"  # among the networks of results: the output of the deployed network's projector
LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "scikit-learn")


def environment() -> dict[str, Any]:
    """Versions and hardware; no host name, user or path."""
    import torch  # records are read without it

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": cuda,
    }


@functools.cache
def code_version() -> dict[str, Any]:
    """The package's version and, in a git checkout, its commit and whether files differ from it, when first asked."""
    folder = Path(ssl_bench.__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or _git(folder, "ls-files", "__init__.py") != "__init__.py":
        return {"version": ssl_bench.__version__, "commit": None, "modified": None}
    changes = _git(folder, "status", "--porcelain", "--", "..", "../../conf")
    modified = None if changes is None else bool(changes)  # None: git could not tell
    return {"version": ssl_bench.__version__, "commit": commit, "modified": modified}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def peak_memory() -> int | None:
    """Largest resident memory of this process so far in bytes, or None where the system does not know."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without where things lie on this machine; of weights to start from the name is left."""
    found = {key: value for key, value in config.items() if key not in ("runs_dir", "data_dir")}
    roots = ("root", "test_root")
    found["dataset"] = {key: value for key, value in config["dataset"].items() if key not in roots}
    return found | ({"init": Path(str(found["init"])).name} if found.get("init") else {})


# What reading and looking into a file raises where it is not of the shape that it should be.
MISFITS = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


def misfit(error: Exception) -> str:
    """What is wrong with the file, by one of MISFITS."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error).splitlines()[0]


ABSENT: Any = None
OF_RUNS = {"required": True}  # every run has such a field, evaluations do not


def _before(value: Any) -> dict[str, Any]:
    """Metadata of a field that evaluations do not have, nor earlier records of runs, where it was ``value``."""
    return {"value": value}


@dataclass(kw_only=True)
class Record:
    """What a run leaves behind for tables and for those who doubt them; or the evaluation of an encoder by itself.

    The fields are the keys of its file, in this order; one that is None is left out. Records of earlier versions lack
    some of those that have a default, which is then what they mean.
    """

    encoder: dict[str, Any] | None = None  # of an evaluation: the file of weights, its network and clean view
    method: str = field(default=ABSENT, metadata=OF_RUNS)
    dataset: str
    scale: str
    seed: int
    fingerprint: str  # 12 hexadecimal digits, the name of the run or of the evaluation
    evaluated: str = field(default=ABSENT, metadata=OF_RUNS)  # the network that the method deploys: student or teacher
    # Accuracy on test images in percent by network and protocol; None where the protocol does not apply.
    results: dict[str, dict[str, float | None]]
    protocols: dict[str, int]  # the version of each
    baselines: dict[str, int] = field(default_factory=lambda: {"random": 1, "pixels": 1})  # and of each baseline
    notes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # what a protocol chose, by network
    # Points of epoch and percent by <split>/<protocol>/<network>, of the dataset eval_on <dataset>:<split>/….
    curves: dict[str, list[list[float | None]]] = field(default=ABSENT, metadata=OF_RUNS)
    warnings: list[str] = field(default=ABSENT, metadata=_before([]))  # of collapse
    numerics: int  # the version of all that changes numbers
    precision: str = field(default=ABSENT, metadata=OF_RUNS)  # 32-true, bf16-mixed or 16-mixed
    device: str = field(default=ABSENT, metadata=_before("cpu"))  # cpu or cuda
    batch_statistics: str = field(default=ABSENT, metadata=OF_RUNS)  # global or per_device
    processes: int = field(default=ABSENT, metadata=OF_RUNS)
    init: dict[str, Any] | None = None  # of a run that starts from a file of weights: name, SHA-256, account of keys
    eval_on: dict[str, Any] | None = None  # of a run whose curves have a second dataset: name, digest, images
    data_digest: str
    images: dict[str, int]  # how many each part has
    skipped_images: dict[str, int] = field(default_factory=dict)  # that could not be read, by split
    test_images_in_train: int | None = None
    contradictory_train_images: int | None = None  # equal ones with different labels
    student_steps: int | None = None
    train_seconds: float | None = None  # of all sessions, evaluation left out
    core_seconds: float | None = None  # that one process computed in these, on all its cores
    images_per_second: float | None = None  # of training
    session_seconds: float | None = None  # of the last session, evaluation included
    peak_memory_bytes: int | None = None  # resident, of one process
    code: dict[str, Any]  # version, commit, modified, and of a run the digest of the method's code
    earlier_code: list[dict[str, Any]] = field(
        default=ABSENT, metadata=_before([])
    )  # of sessions before the last, where it differs
    environment: dict[str, Any]  # versions of libraries, hardware, threads
    config: dict[str, Any]  # resolved, without places on this machine
    seconds: float | None = None  # that an evaluation took

    @property
    def code_versions(self) -> list[dict[str, Any]]:
        """All code that a run was trained by, several where it was interrupted."""
        return [self.code, *self.earlier_code]

    @property
    def devices_and_nodes(self) -> tuple[int, int]:
        """How many devices each machine had, and how many machines there were."""
        return self.config["trainer"]["devices"], self.config["trainer"]["nodes"]

    @property
    def last_on_validation(self) -> float | None:
        """The monitor's percent on validation images after the last epoch; None where none were held out."""
        return self.on_validation(self.config["evaluation"]["monitor"])

    def on_validation(self, protocol: str, network: str | None = None) -> float | None:
        """Percent on validation images after the last epoch; None where that was not computed or none were held out.

        network: None for the one that the method deploys.
        """
        curve = self.curves.get(f"validation/{protocol}/{network or self.evaluated}")
        if not curve or not self.config["scale"]["hold_out_validation"]:  # else they were trained on
            return None
        return curve[-1][1]

    @property
    def run_fingerprint(self) -> str:
        """The name of the run that it is of, by all else that stands in it."""
        return fingerprint(
            self.config,
            data_digest=self.data_digest,
            precision=self.precision,
            device=self.device,
            statistics_shares=1 if self.batch_statistics == "global" else self.processes,
            numerics=self.numerics,
            init=None if self.init is None else self.init["sha256"],
        )

    def write(self, path: Path) -> None:
        """Write it as JSON; numbers that are not finite become null, for JSON has none."""
        there = {key: value for key, value in asdict(self).items() if value is not None}
        write_text(path, json.dumps(_finite(there), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path, name: str) -> Record:
        """The record of the finished run ``name``.

        Raises:
            ValueError: the file holds none, or that of another run; the message states what is wrong with it.
        """
        try:
            record = cls.from_json(json.loads(path.read_text(encoding="utf-8")))
            record.require_run(name)
        except MISFITS as error:
            raise ValueError(misfit(error)) from None
        return record

    @classmethod
    def from_json(cls, found: Any) -> Record:
        """The record of a run that a file of this or an earlier version holds; ValueError if a field does not fit."""
        if not isinstance(found, dict):
            raise ValueError("it is not a JSON object")
        values = {}
        for known in fields(cls):
            value = found.get(known.name)
            if value is None:
                missing = known.default is MISSING and known.default_factory is MISSING
                if missing or "required" in known.metadata:
                    raise ValueError(f"it has no {known.name}")
                if "value" in known.metadata:
                    values[known.name] = copy(known.metadata["value"])
                continue
            kind = _KINDS[known.name]
            if not (_is_number(value) if kind is float else isinstance(value, kind)):
                raise ValueError(f"its {known.name} is no {'number' if kind is float else kind.__name__}")
            values[known.name] = value
        return cls(**values)

    def require_run(self, name: str) -> None:
        """ValueError, or what a wrong shape leads to, if it is not the whole record of the run ``name``."""
        if self.fingerprint != name:
            raise ValueError(f"it belongs to run {self.fingerprint}")
        if self.run_fingerprint != name:
            raise ValueError("its configuration, data or precision is that of another run")
        self._require_results()
        if type(self.images["test"]) is not int or type(self.environment["threads"]) is not int:
            raise ValueError("its number of test images or of threads is no whole number")
        if not all(type(self.baselines[network]) is int for network in ("random", "pixels")):
            raise ValueError("its versions of the baselines are no whole numbers")
        for name, curve in self.curves.items():
            if not isinstance(curve, list) or not all(isinstance(point, list) and len(point) == 2 for point in curve):
                raise ValueError(f"its curve {name} is no list of epochs and percents")
            if not all(_is_number(epoch) and (percent is None or _is_number(percent)) for epoch, percent in curve):
                raise ValueError(f"its curve {name} holds something that is no number")
        config = self.config
        config["trainer"]["threads"], config["epochs"], config["dataset"]["name"], config["method"]["target"]
        if not all(isinstance(version, dict) for version in self.code_versions):
            raise ValueError("its code versions are none")

    def _require_results(self) -> None:
        if self.evaluated not in self.results:
            raise ValueError(f"it has no results of {self.evaluated}, the network evaluated")
        for network, scores in self.results.items():
            if not isinstance(scores, dict):
                raise ValueError(f"its results of {network} are no percents by protocol")
            for protocol, value in scores.items():
                if value is not None and not (_is_number(value) and 0 <= value <= 100):
                    raise ValueError(f"its {protocol} is {value!r}")
        wanted = {*self.config["evaluation"]["protocols"], *(name for found in self.results.values() for name in found)}
        if not wanted <= self.protocols.keys() or not all(type(version) is int for version in self.protocols.values()):
            raise ValueError("its protocols are not those of its configuration, with their versions")


def _kind(hint: Any) -> Any:
    """The class that a value of this type has, None aside."""
    hint = get_args(hint)[0] if isinstance(hint, UnionType) else hint
    return get_origin(hint) or hint


_KINDS = {name: _kind(hint) for name, hint in get_type_hints(Record).items()}


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
