"""Any encoder on any dataset, under the protocols of a run."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ssl_bench.config.schema import Config
from ssl_bench.data.datamodule import DataModule
from ssl_bench.data.image_warnings import image_warnings
from ssl_bench.devices import AGAIN, failures_named, resolve_device
from ssl_bench.encoders.loading import encoder_clean
from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluator import LESS, Evaluator, reasons
from ssl_bench.evaluation.layers import FEATURES, Layers, score_layers, widths
from ssl_bench.evaluation.protocols import with_top5
from ssl_bench.files import name_of, require_writable
from ssl_bench.nn.backbone import stages
from ssl_bench.report.tables import accuracy_table, transfer_table
from ssl_bench.results.fingerprint import NUMERICS, fine_tunes
from ssl_bench.results.keys import listed
from ssl_bench.results.record import Record, code_version
from ssl_bench.results.weights import LoadedEncoder, open_encoder, open_projector, sha256
from ssl_bench.training.build import baseline_scores, build_data, build_evaluator
from ssl_bench.training.scoring import record_of_scores


@failures_named("evaluation", LESS, AGAIN)
def score_all(given: Sequence[tuple[Path, Config, Collection[str], Mapping[str, Any]]]) -> list[Record]:
    """`score` on several datasets, one after another, and one table of them all.

    UserError before any is scored where one of them cannot be read or split as asked for, or the encoder cannot take
    its images.
    """
    if len(given) > 1:
        for of_one in given:
            _require_usable(*of_one)
    records = [score(*of_one) for of_one in given]
    if len(records) > 1:
        names = [config.dataset.options.get("root") or config.dataset.name for _, config, _, _ in given]
        Console().print(transfer_table(given[0][0].name, dict(zip(map(str, names), records, strict=True))))
    return records


def score(run_or_file: Path, config: Config, chosen: Collection[str], settings: Mapping[str, Any]) -> Record:
    """Score the encoder, random weights and raw pixels; print the table, write the record and return it.

    chosen: the keys of ``config`` that the user set. settings: the options of evaluate.yaml.
    """
    started = time.perf_counter()
    path, folder = _place(config, settings)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    console = Console()

    def show(*sentences: str) -> None:
        for sentence in sentences:
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    encoder = _load(run_or_file, config, chosen, settings)
    show(_account(run_or_file, encoder), *(f"assumed: {clause}" for clause in encoder.assumed))
    data = build_data(config)
    _require_channels(run_or_file, encoder, data)
    clean, whose = clean_view(encoder, data, config, chosen, settings)
    repeated = ", the gray channel three times" if encoder.channels > data.dataset.channels else ""
    show(f"images: {clean['size']} pixels, normalised by mean and standard deviation ({whose}){repeated}")
    encoder.require_size(clean["size"])
    layers, of, about_layers = _layers(encoder, clean["size"], everything=settings["layers"] == "all", show=show)

    data.setup()
    seen = image_warnings(data.dataset, data.splits)
    show(*(f"warning: {sentence}" for sentence in seen.sentences))
    device = resolve_device(config.trainer.accelerator)
    names = with_top5(config.evaluation.protocols, data.dataset.classes)
    evaluator = build_evaluator(config, data, clean)
    no_room = data.place_on(device)
    show(*([f"warning: {no_room}"] if no_room else []), "evaluating")
    scores = score_layers(evaluator, layers, of, names, device)
    scores |= baseline_scores(config, data, evaluator, device, network=encoder.network, clean=clean)
    content = sha256(encoder.file)
    name = fingerprint(config, data, encoder, evaluator, content=content, about={"clean": clean, **about_layers})
    parts = ("bank", "probe", "validation")
    record = record_of_scores(
        scores, config, data, evaluator, seen, fingerprint=name, code=code_version(), protocols=names, parts=parts
    )
    record = replace(
        record,
        encoder={**description(encoder, clean=clean, statistics=whose, content=content), **about_layers},
        config={key: record.config[key] for key in ("dataset", "evaluation", "subset", "labels")},
        seconds=round(time.perf_counter() - started, 2),
    )
    console.print(accuracy_table(run_or_file.name, record, bold=FEATURES))
    show(*(f"not scored: {reason}" for reason in reasons(scores[FEATURES])))
    if folder == path:
        path = folder / f"evaluation-{name}.json"
    record.write(path)
    show(str(path))
    return record


def _place(config: Config, settings: Mapping[str, Any]) -> tuple[Path, Path]:
    """Where the record is to lie, and the folder that must take it; UserError where that cannot be written."""
    path = Path(settings["out"] or config.runs_dir)
    if path.is_file() and (path.suffix != ".json" or path.name == "record.json"):  # a run's
        raise UserError(f"out={path} is a file, and no record of this command: name a folder, or a new file.json.")
    folder = path if settings["out"] is None or path.is_dir() else path.parent
    require_writable(folder, f"{'runs_dir' if settings['out'] is None else 'out'}={path}")
    return path, folder


def _require_usable(run_or_file: Path, config: Config, chosen: Collection[str], settings: Mapping[str, Any]) -> None:
    """UserError where the encoder could not be scored on the dataset, which is read and left again."""
    _place(config, settings)
    encoder, data = _load(run_or_file, config, chosen, settings), build_data(config)
    _require_channels(run_or_file, encoder, data)
    encoder.require_size(clean_view(encoder, data, config, chosen, settings)[0]["size"])
    data.setup()


def _require_channels(run_or_file: Path, encoder: LoadedEncoder, data: DataModule) -> None:
    if encoder.channels not in (data.dataset.channels, 3):
        raise UserError(
            f"{run_or_file} takes images of {encoder.channels} channel(s), but {data.dataset.name} has "
            f"{data.dataset.channels}: choose another dataset."
        )


def _load(run_or_file: Path, config: Config, chosen: Collection[str], settings: Mapping[str, Any]) -> LoadedEncoder:
    """The encoder, its network as its file has it but for what the user chose."""
    backbone = config.backbone
    return open_encoder(
        run_or_file,
        name=backbone.name if "backbone" in chosen or "backbone.name" in chosen else None,
        stem=backbone.stem if "backbone.stem" in chosen else None,
        width=backbone.width if "backbone.width" in chosen else None,
        prefix=settings["prefix"],
        arguments=backbone.arguments if any(key.startswith("backbone") for key in chosen) else None,
    )


def clean_view(
    encoder: LoadedEncoder, data: DataModule, config: Config, chosen: Collection[str], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Arguments of the clean view, as the file has them but for what the user chose; and whose statistics they hold."""
    dataset = config.dataset
    return encoder_clean(
        encoder,
        size=dataset.size if encoder.clean is None or "dataset.size" in chosen else None,
        crop=dataset.clean_crop if encoder.clean is None or "dataset.clean_crop" in chosen else None,
        statistics=settings["statistics"],
        dataset=data.dataset,
    )


def _layers(
    encoder: LoadedEncoder, size: int, *, everything: bool, show: Callable[..., None]
) -> tuple[Layers, dict[str, int], dict[str, Any]]:
    """The layers that are scored, their widths, and what an evaluation of more than the features states of them."""
    if not everything:
        layers = Layers(encoder.backbone, {}, None)
        return layers, widths(layers, torch.zeros(1, encoder.channels, size, size)), {}
    projector, file = open_projector(encoder)
    layers = Layers(encoder.backbone, stages(encoder.backbone), projector)
    of = widths(layers, torch.zeros(1, encoder.channels, size, size))
    if next(iter(of)) == FEATURES:
        show(f"no stages: {encoder.network['name']} does not list any")
    if projector is None:
        show(f"no layers of a projector: {file} would have them, a run's checkpoint")
    return layers, of, {"layers": of, "projector": None if projector is None else sha256(file)}


def _account(run_or_file: Path, encoder: LoadedEncoder) -> str:
    keys = encoder.keys
    return (
        f"{run_or_file}: {encoder.network['name']}, {len(keys.used)} tensors used"
        + (f", all below {keys.prefix}" if keys.prefix else "")
        + (f"; left over: {listed(keys.left_over)}" if keys.left_over else "; none left over")
    )


def fingerprint(
    config: Config,
    data: DataModule,
    encoder: LoadedEncoder,
    evaluator: Evaluator,
    *,
    content: str,
    about: dict[str, Any],
) -> str:
    """The name of an evaluation, the same for the same one.

    content: the SHA-256 of the encoder's file. about: its clean view and, where all layers are scored, these.
    """
    identity = {
        "sha256": content,
        "network": encoder.network,
        "prefix": encoder.keys.prefix,
        **about,
        "data": data.digest,
        "protocols": {name: evaluator.protocols[name].version for name in config.evaluation.protocols},
        "linear": config.evaluation.linear.as_dict(),
        **({"finetune": config.evaluation.finetune.as_dict()} if fine_tunes(config.evaluation.protocols) else {}),
        "labels": config.labels,
        "seed": config.seed,
        "numerics": NUMERICS,
    }
    return name_of(identity)[:12]


def description(encoder: LoadedEncoder, *, clean: dict[str, Any], statistics: str, content: str) -> dict[str, Any]:
    """What the record of an evaluation holds of its encoder."""
    return {
        "file": encoder.file.name,
        "sha256": content,
        "run": encoder.fingerprint,
        "network": encoder.network,
        "clean": clean,
        "statistics": statistics,
        "assumed": list(encoder.assumed),
        "keys": asdict(encoder.keys),
    }
