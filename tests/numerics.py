"""What must stay the same while ``NUMERICS`` does: ``python tests/numerics.py`` writes tests/numerics.json.

Renew the file only together with ``NUMERICS`` in ``results/fingerprint.py`` or with the version of a protocol, since
runs and scores of the same name have to have the same numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ssl_bench.batch import Place
from ssl_bench.config.compose import compose
from ssl_bench.config.options import GROUPS
from ssl_bench.data.catalog import DATASETS
from ssl_bench.data.orders import Window, permutation
from ssl_bench.results.fingerprint import NUMERICS
from ssl_bench.training import trace
from ssl_bench.training.build import build_data, build_evaluator, build_method, clean_arguments

FILE = Path(__file__).with_suffix(".json")
STEPS = 2  # whose losses are kept: later ones differ from machine to machine by what rounding has grown to
DIGITS = ["dataset=digits", "scale=smoke"]


def drawn() -> dict[str, Any]:
    """Orders, random numbers of views, and a sum over all initial weights that knows their order, by method."""
    place = Place(seed=0, epoch=1, step=2, first=3, size=8)
    methods = {
        name: list(build_method(compose([f"method={name}", *DIGITS]), DATASETS["digits"]).parameters())
        for name in GROUPS["method"]
    }
    return {
        "order": permutation(10, seed=0, epoch=3).tolist(),
        "window": Window(share=0.25, strides=4).positions(12, seed=0, length=12, epoch=1).tolist(),
        "uniform": place.uniform(2, 3, draw=1, stream=1).tolist(),
        "weights": {
            name: sum(float(p.detach().double().flatten().abs() @ torch.arange(p.numel()).double()) for p in found)
            for name, found in methods.items()
        },
    }


def losses(method: str) -> list[float]:
    """Of the first steps of the training that ``check`` makes."""
    found: list[float] = trace.train(method)["losses"][:STEPS]
    return found


def scores() -> dict[str, dict[str, Any]]:
    """Of raw pixels of digits: percent on test images and version, by protocol."""
    config = compose([*DIGITS, "evaluation.protocols=[knn1,knn200,knn1_100labels,linear,knn,linear_10percent]"])
    data = build_data(config)
    data.setup()
    evaluator = build_evaluator(config, data, clean_arguments(config, data.dataset))
    names = config.evaluation.protocols
    found = evaluator.score(evaluator.pixels(torch.device("cpu")), names, "test")
    return {name: {"version": evaluator.protocols[name].version, "percent": found[name].percent} for name in names}


if __name__ == "__main__":
    torch.set_num_threads(1)
    content = {
        "numerics": NUMERICS,
        **drawn(),
        "losses": {method: losses(method) for method in GROUPS["method"]},
        "scores": scores(),
    }
    FILE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
