"""The model card beside an exported encoder: README.md with the metadata of the Hugging Face Hub."""

import shlex
from contextlib import suppress
from typing import Any

import yaml

from ssl_bench.config.compose import options_for
from ssl_bench.data.facts import FACTS
from ssl_bench.encoders.formats import Format, Subject
from ssl_bench.errors import UserError
from ssl_bench.report.palette import label
from ssl_bench.report.tables import with_arguments
from ssl_bench.results.record import Record

LIBRARY = {"safetensors": "ssl_bench"}  # where the Hub's name of the library is another


def card(subject: Subject, chosen: Format, to: str, record: Record | None, sha256: str) -> str:
    """The text. record: of the run that trained the encoder, where it is known; sha256: of its file."""
    data = record.dataset if record else subject.encoder.dataset
    title = f"{label(record.method)} on {record.dataset}" if record else subject.encoder.file.name
    parts = [
        f"---\n{yaml.safe_dump(_metadata(to, data, record), sort_keys=False, allow_unicode=True)}---",
        f"# {title}",
        _network(subject, sha256),
        *([_trained(record)] if record else []),
        _preprocessing(subject, chosen),
        "## Use\n\n`folder` is where these files are.\n\n```python\n" + "\n\n".join(chosen.lines(subject)) + "\n```",
        *([_table(record)] if record else []),
        *([_data(data)] if data in FACTS else []),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(to: str, data: str | None, record: Record | None) -> dict[str, Any]:
    """What the Hub finds and filters models by, under its names (huggingface/hub-docs, modelcard.md).

    It has one licence for all, which is that of the ``data`` here.
    """
    about = dict(FACTS[data].hub) if data in FACTS else {}
    dataset = about.pop("dataset", data)
    trained = [record.method, f"recipe:{_recipe(record)}"] if record else []
    return {
        **about,
        "library_name": LIBRARY.get(to, to),
        "pipeline_tag": "image-feature-extraction",
        "tags": ["self-supervised-learning", "ssl_bench", *trained],
        **({"datasets": [dataset]} if dataset else {}),
        **({"metrics": ["accuracy"], "model-index": [_results(record, dataset)]} if record else {}),
    }


def _recipe(record: Record) -> str:
    return str(record.config.get("recipe", "shared"))


def _results(record: Record, dataset: str | None) -> dict[str, Any]:
    """What the Hub shows of the results; ``dataset`` is its name there."""
    scores = record.results[record.evaluated]
    metrics = [
        {
            "type": "accuracy",
            "name": f"{name} v{record.protocols[name]}",
            "value": round(value, 2),
            "args": {"protocol": name, "version": record.protocols[name]},
        }
        for name, value in scores.items()
        if value is not None
    ]
    about = {"type": dataset, "name": record.dataset, "split": "test"}
    return {
        "name": f"{record.method}-{record.dataset}-{record.fingerprint}",
        "results": [{"task": {"type": "image-classification"}, "dataset": about, "metrics": metrics}],
    }


def _network(subject: Subject, sha256: str) -> str:
    network, channels = subject.network, subject.network["channels"]
    is_timm = network["name"].startswith("timm/")
    shape = "" if is_timm else f", {network['stem']} stem, width {network['width']}"
    return (
        f"{with_arguments(network)}{shape}, {channels} channel{'s' if channels > 1 else ''}, without a classifier. "
        f"SHA-256 of the file that it was exported from: `{sha256}`."
    )


def _trained(record: Record) -> str:
    config, code = record.config, record.code
    commit = f" at commit `{code['commit']}`" if code.get("commit") else ""
    text = (
        f"Trained by {label(record.method)} ({_recipe(record)} recipe) on "
        f"{record.images['pretraining']:,} images of {record.dataset} for "
        f"{config['epochs']} epoch{'s' if config['epochs'] > 1 else ''}, "
        f"seed {record.seed}, {record.precision}; this is its {record.evaluated}. "
        f"Run `{record.fingerprint}` of ssl_bench {code['version']}{commit}."
    )
    with suppress(UserError):  # of a method or dataset that is not installed here
        text += f"\n\n```bash\npython -m ssl_bench {shlex.join(options_for(config))}\n```"
    return text


def _preprocessing(subject: Subject, chosen: Format) -> str:
    clean, channels = subject.clean, subject.network["channels"]
    resized, side = round(clean["size"] / clean["crop"]), clean["size"]
    steps = (
        f"floats of 0–1, the shorter side resized to {resized} pixels (bilinear, antialiased), the centre of "
        f"{side} × {side} cut out, normalised by mean {clean['mean']} and standard deviation {clean['std']}"
    )
    if chosen.takes_raw(subject):
        taken = f"`images`: floats of 0–1 `[N, {channels}, H, W]` of any size. The encoder itself does the rest"
    else:
        taken = f"`images`: `[N, {channels}, {side}, {side}]`"
    return f"## Images\n\n{taken}: {steps}."


def _table(record: Record) -> str:
    scores = record.results[record.evaluated]
    rows = []
    for name in (name for name, value in scores.items() if value is not None):
        percents = " | ".join(_percent(record, network, name) for network in (record.evaluated, "random", "pixels"))
        rows.append(f"| {name} | {record.protocols[name]} | {percents} |")
    heading = "| protocol | version | this encoder | random weights | raw pixels |\n|---|---:|---:|---:|---:|"
    return "## Results\n\n% of test images, after the last epoch.\n\n" + "\n".join([heading, *rows])


def _percent(record: Record, network: str, protocol: str) -> str:
    value = record.results.get(network, {}).get(protocol)
    return "–" if value is None else f"{value:.1f}"


def _data(name: str | None) -> str:
    facts = FACTS[str(name)]
    text = f"## Data\n\n{facts.source.strip()}\n\nLicence of the data: {facts.licence}."
    return (
        f"{text} `license` in the metadata is this one: change it if that of the weights is another."
        if facts.hub
        else text
    )
