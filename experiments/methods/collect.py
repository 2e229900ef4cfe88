"""Gather finished runs into trials.csv (all settings tried, by validation) and results.csv (shipped settings, by test).

    python experiments/methods/collect.py RUNS [RUNS ...]

A trial's settings are those that differ from what `python -m ssl_bench method=… dataset=… scale=…` does today.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ssl_bench.config import compose

HERE = Path(__file__).parent
# Where a run lies, what it runs on, and how it is watched.
LEFT_OUT = ("runs_dir", "data_dir", "trainer", "logger", "seed", "recipe")
ROUND = 2
DEPLOYED = {"clbo": "teacher"}


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def settings(record: Mapping[str, Any]) -> str:
    """The words that turn the shipped configuration into the record's; "" for the shipped one."""
    shipped = dict(leaves(compose([f"{key}={record[key]}" for key in ("method", "dataset", "scale")])))
    differing = {
        key: value
        for key, value in leaves(record["config"])
        if key.partition(".")[0] not in LEFT_OUT and key in shipped and shipped[key] != value
    }
    for key in ("clip", "precision"):
        if record["config"]["trainer"][key] != shipped[f"trainer.{key}"]:
            differing[f"trainer.{key}"] = record["config"]["trainer"][key]
    # λ of CLBO follows from other options unless it is set.
    if record["config"]["method"].get("proximal"):
        differing.pop("method.proximal", None)
    return " ".join(f"{key}={'null' if value is None else value}" for key, value in sorted(differing.items()))


def main(folders: list[str]) -> None:
    records = [json.loads(path.read_text()) for folder in folders for path in Path(folder).glob("*/record.json")]
    records.sort(key=lambda r: (r["dataset"], r["method"], settings(r), r["seed"]))
    trials, results = [], []
    for record in records:
        network, said = record["evaluated"], settings(record)
        where = {key: record[key] for key in ("dataset", "scale", "method", "seed")}
        on_validation = {
            protocol: record["curves"][f"validation/{protocol}/{network}"][-1][1] for protocol in ("knn1", "linear")
        }
        trials.append(
            {
                **where,
                "settings": said or "as shipped",
                **{f"validation_{name}": round(value, ROUND) for name, value in on_validation.items()},
                "mean": round(sum(on_validation.values()) / 2, ROUND),
                "train_seconds": record["train_seconds"],
                "code": record["code"]["commit"][:7],
            }
        )
        if said:
            continue
        for net, scores in record["results"].items():
            for protocol, percent in scores.items():
                results.append({**where, "network": net, "protocol": protocol, "percent": round(percent, ROUND)})
    for name, rows in (("trials.csv", trials), ("results.csv", results)):
        with (HERE / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(table(results))


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: mean ± standard deviation over seeds for each method's deployed network, best `knn1` first."""
    scores: dict[tuple[str, str], dict[str, dict[int, float]]] = {}  # protocol → seed → percent
    for row in results:
        network = {"random": "random weights", "pixels": "raw pixels"}.get(row["network"], row["method"])
        if network == row["method"] and row["network"] != DEPLOYED.get(row["method"], "student"):
            continue
        by_protocol = scores.setdefault((row["dataset"], network), {})
        by_protocol.setdefault(row["protocol"], {})[row["seed"]] = row["percent"]
    lines = ["| dataset | network | n | knn1 | knn200 | knn1_100labels | linear |", "|---|---|---|---|---|---|---|"]
    for (dataset, network), found in sorted(
        scores.items(), key=lambda item: (item[0][0], -mean(item[1]["knn1"].values()))
    ):
        cells = [
            f"{mean(seeds.values()):.1f}" + (f" ± {stdev(seeds.values()):.1f}" if len(seeds) > 1 else "")
            for seeds in found.values()
        ]
        lines.append(f"| {dataset} | `{network}` | {len(found['knn1'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
