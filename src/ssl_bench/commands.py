"""The commands of ``python -m ssl_bench``: a line each, and a file of ``cli/`` each."""

from __future__ import annotations

RUN = "run"  # what is done where no command is named

COMMANDS = {
    RUN: "train one method on one dataset and score it, as in method=clbo dataset=stl10",
    "sweep": "run what a table or figure is made of, skipping what is finished",
    "plan": "what a sweep will cost on this machine: hours, memory, disk",
    "report": "render a table or figure from finished runs",
    "runs": "list, filter, sort and compare finished runs",
    "page": "findings, tables, curves and every run as a page for the browser",
    "data": "list, fetch, verify, pack and show datasets",
    "evaluate": "score any encoder on any dataset under the protocols of a run",
    "embed": "features of every picture below a folder",
    "export": "a trained encoder for torchvision, timm, ONNX or transformers",
    "check": "certify that several processes train what one trains; check learns: that methods learn",
    "bench": "measure the speed beside named baselines",
}


def commands_text() -> list[str]:
    """The commands for a help, a line each."""
    return ["Commands (COMMAND --help shows the options of one):"] + [
        f"  {name:<10}{meaning}" for name, meaning in COMMANDS.items()
    ]
