"""Records as runs leave them, made without any run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_bench.config.compose import compose_cells
from ssl_bench.config.experiments import Cell, find
from ssl_bench.config.schema import Config
from ssl_bench.report.records import Run, StoredRecord
from ssl_bench.results.record import Record

TEST_IMAGES = 400
PROTOCOLS = ("knn1", "knn200", "knn1_100labels", "linear")
TEACHERS = ("clbo",)  # methods that deploy theirs


def record(cell: Cell, config: Config, *, percent: float | None = None, **other: Any) -> dict[str, Any]:
    """The file of a finished run of ``cell``: ``percent`` under every protocol, or what its name and seed draw."""
    draw = np.random.default_rng([cell.seed, *cell.name.encode()])
    deployed = "teacher" if config.method.name in TEACHERS else "student"
    networks = ["teacher", "student"] if deployed == "teacher" else ["student"]

    def images(mean: float) -> float:
        return 100 * round(TEST_IMAGES * (mean + draw.normal()) / 100) / TEST_IMAGES

    def scores(mean: float) -> dict[str, float]:
        return {name: images(mean) if percent is None or mean < 90 else percent for name in PROTOCOLS}

    passes = config.method.options["lookahead"] if config.method.options.get("epoch_unit") == "teacher" else 1
    found = {
        "method": config.method.name,
        "dataset": cell.dataset,
        "scale": config.scale.name,
        "seed": cell.seed,
        "fingerprint": "",
        "evaluated": deployed,
        "results": {**{name: scores(95.0) for name in networks}, "random": scores(70.0), "pixels": scores(80.0)},
        "protocols": dict.fromkeys(PROTOCOLS, 1),
        "notes": {},
        "curves": {
            f"{on}/{protocol}/{network}": [
                [epoch, images(95.0 - 20.0 / epoch)]
                for epoch in range(config.eval_every, passes * config.epochs + 1, config.eval_every)
            ]
            for on in ("validation", "test")
            for protocol in ("knn1", "linear")
            for network in networks
        },
        "numerics": 1,
        "precision": "bf16-mixed",
        "batch_statistics": "global",
        "processes": 1,
        "data_digest": f"digest of {cell.dataset}",
        "images": {"test": TEST_IMAGES},
        "code": {"version": "0.1.0", "commit": "0123456789abcdef", "modified": False},
        "environment": {"threads": 1},
        "config": config.as_dict(),
        **other,
    }
    found["fingerprint"] = Record.from_json(found).run_fingerprint
    return found


def records_of(found: Sequence[Mapping[str, Any]]) -> list[Record]:
    """What is read of such files."""
    return [Record.from_json(one) for one in found]


def cells_of(name: str, scale: str = "smoke", **limits: Any) -> tuple[list[Cell], list[Config]]:
    """Cells of a table or figure with their configurations."""
    cells = find(name).cells(scale, **limits)
    return cells, compose_cells(cells)


def runs_of(cells: Sequence[Cell], configs: Sequence[Config]) -> list[Run]:
    """Finished runs of these cells, with made-up records."""
    pairs = list(zip(cells, configs, strict=True))
    made = records_of([record(cell, config) for cell, config in pairs])
    return [
        Run(cell, config, StoredRecord(Path(one.fingerprint), one), None)
        for (cell, config), one in zip(pairs, made, strict=True)
    ]


def keep(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records as ``runs/<fingerprint>/record.json``."""
    for one in records:
        target = folder / one["fingerprint"] / "record.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(one), encoding="utf-8")
