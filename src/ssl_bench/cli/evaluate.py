"""python -m ssl_bench evaluate: any encoder on any dataset, under the protocols of a run.

RUN_OR_FILE is a run's folder, its encoder.safetensors, or a state dict of torchvision, timm or Lightning (.pth, .pt,
.ckpt, .safetensors), wrapped and prefixed as it may be. A file that is not ours is taken for a ResNet if its names and
shapes are those of one; otherwise backbone.name=timm/<model> names the network. Every tensor of the file and every
parameter of the network is accounted for, and a file that does not fit is refused. Nothing in it is run.

The table holds the encoder, the same network with random weights (of seed=) and raw pixels; the record, as JSON, is
written beside the runs.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench.conditions import require_protocols, require_root
from ssl_bench.config.compose import compose, parse
from ssl_bench.config.options import GROUPS, leading, options_in, read_settings, require_known, settings_text
from ssl_bench.config.schema import Config
from ssl_bench.entry import answer
from ssl_bench.errors import UserError

if TYPE_CHECKING:
    from ssl_bench.data.datamodule import DataModule
    from ssl_bench.evaluation.evaluator import Evaluator, Scores
    from ssl_bench.results.weights import Opened

FILE = "evaluate.yaml"
# What an evaluation reads of a run's options; a trailing dot means all below. All else is training's.
READ = (
    "dataset",
    "dataset.",
    "scale",
    "scale.hold_out_validation",
    "backbone",
    "backbone.",
    "evaluation",
    "evaluation.protocols",
    "evaluation.batch_size",
    "evaluation.memory",
    "evaluation.linear.",
    "subset",
    "labels",
    "seed",
    "data_dir",
    "runs_dir",
    "trainer.accelerator",
    "trainer.threads",
)
TRAINING = ("dataset.epochs", "dataset.queue", "dataset.window", "dataset.stem")  # and not read below dataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the words, then evaluate; returns the exit status."""

    def work(words: list[str]) -> None:
        evaluate(*read(words))

    return answer(arguments, help_text, work, interrupted="interrupted; nothing was written.")


def help_text() -> str:
    """Usage, what it does, options."""
    usage = "python -m ssl_bench evaluate RUN_OR_FILE dataset=... [key=value ...]"
    lines = [usage, "", str(__doc__).partition("\n\n")[2], "Options of its own, with the allowed values:"]
    taken = ", ".join(f"{key}*" if key.endswith(".") else key for key in READ)
    return "\n".join([*lines, *settings_text(FILE), "", f"And those of python -m ssl_bench (its --help): {taken}."])


def read(words: Sequence[str]) -> tuple[Path, Config, set[str], dict[str, Any]]:
    """The encoder, the configuration, which of its options were set by a word, and the options of our own.

    Raises UserError for a word that is unknown, wrong, or makes no sense here.
    """
    (encoder,), words = leading(words, "a run's folder or a file of weights")
    if not Path(encoder).exists():
        raise UserError(f"{encoder} does not exist: give a finished run's folder or a file of weights.")
    own = options_in(FILE)
    settings = read_settings(FILE, [word for word in words if word.partition("=")[0] in own])
    words = [word for word in words if word.partition("=")[0] not in own]
    require_known(words, own)
    config = compose(words)
    said = {override.key_or_group for override in parse(words)}
    for key in sorted(said):
        if key in TRAINING or not any(key == known or (known[-1] == "." and key.startswith(known)) for known in READ):
            raise UserError(f"{key} makes no sense here, where nothing is trained: leave it out.")
    if "dataset" not in said:
        raise UserError(f"say on which dataset, as in dataset=digits; known are {', '.join(GROUPS['dataset'])}.")
    require_root(config.dataset.name, config.dataset.options.get("root", ""))
    require_protocols(config.evaluation.protocols, config.evaluation.linear.learning_rates)
    return Path(encoder), config, said, settings


def evaluate(run_or_file: Path, config: Config, said: set[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Score the encoder, random weights and raw pixels, print the table, write the record and return it."""
    import torch
    from rich.console import Console

    from ssl_bench.data.remarks import remarks
    from ssl_bench.devices import resolve_device
    from ssl_bench.evaluation.evaluator import reasons
    from ssl_bench.files import require_writable
    from ssl_bench.report.tables import accuracy_table
    from ssl_bench.results.keys import listed
    from ssl_bench.results.record import write_record
    from ssl_bench.results.weights import open_encoder, sha256
    from ssl_bench.training.build import baseline_scores, build_data, build_evaluator, encoder_clean

    started = time.perf_counter()
    path = Path(settings["out"] or config.runs_dir)
    folder = path if settings["out"] is None or path.is_dir() else path.parent
    require_writable(folder, f"{'runs_dir' if settings['out'] is None else 'out'}={path}")
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    console = Console()

    def tell(sentence: str) -> None:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    chosen = config.backbone
    encoder = open_encoder(
        run_or_file,
        name=chosen.name if said & {"backbone", "backbone.name"} else None,
        stem=chosen.stem if "backbone.stem" in said else None,
        width=chosen.width if "backbone.width" in said else None,
        prefix=settings["prefix"],
    )
    keys, network, content = encoder.keys, encoder.network, sha256(encoder.file)
    tell(
        f"{run_or_file}: {network['name']}, {len(keys.used)} tensors used"
        + (f", all below {keys.prefix}" if keys.prefix else "")
        + (f"; left over: {listed(keys.left_over)}" if keys.left_over else "; none left over")
    )
    for clause in encoder.assumed:
        tell(f"assumed: {clause}")

    data = build_data(config)
    dataset = data.dataset
    if encoder.channels not in (dataset.channels, 3):
        raise UserError(
            f"{run_or_file} takes images of {encoder.channels} channel(s), but {dataset.name} has {dataset.channels}."
        )
    clean, whose = encoder_clean(
        encoder,
        size=config.dataset.size if encoder.clean is None or "dataset.size" in said else None,
        crop=config.dataset.clean_crop if encoder.clean is None or "dataset.clean_crop" in said else None,
        statistics=settings["statistics"],
        dataset=dataset,
    )
    repeated = ", the gray channel three times" if encoder.channels > dataset.channels else ""
    tell(f"images: {clean['size']} pixels, normalised by mean and standard deviation ({whose}){repeated}")
    encoder.require_size(clean["size"])

    data.setup()
    seen = remarks(dataset, data.splits)
    for sentence in seen.sentences:
        tell(f"warning: {sentence}")
    device = resolve_device(config.trainer.accelerator)
    names = config.evaluation.protocols
    evaluator = build_evaluator(config, data, clean)
    no_room = data.place_on(device)
    if no_room:
        tell(f"warning: {no_room}")
    tell("evaluating")
    splits = evaluator.features(encoder.backbone.to(device), device)
    scores = {"encoder": evaluator.score(splits, names, "test")}
    scores |= baseline_scores(config, data, evaluator, device, network=network, clean=clean)
    record = describe(config, data, encoder, evaluator, scores, clean=clean, statistics=whose, sha256=content)
    record["test_images_in_train"] = seen.test_images_in_train
    record["contradictory_train_images"] = seen.contradictory_train_images
    record["seconds"] = round(time.perf_counter() - started, 2)
    console.print(accuracy_table(run_or_file.name, record, bold="encoder"))
    for reason in reasons(scores["encoder"]):
        tell(f"not scored: {reason}")
    if folder == path:
        path = folder / f"evaluation-{record['fingerprint']}.json"
    write_record(path, record)
    tell(str(path))
    return record


def describe(
    config: Config,
    data: DataModule,
    encoder: Opened,
    evaluator: Evaluator,
    scores: dict[str, Scores],
    *,
    clean: dict[str, Any],
    statistics: str,
    sha256: str,
) -> dict[str, Any]:
    """What an evaluation leaves behind, under a name that is the same for the same evaluation."""
    from ssl_bench.evaluation.baselines import VERSIONS
    from ssl_bench.results.fingerprint import NUMERICS
    from ssl_bench.results.record import code_version, environment, without_places

    identity = {
        "sha256": sha256,
        "network": encoder.network,
        "prefix": encoder.keys.prefix,
        "clean": clean,
        "data": data.digest,
        "protocols": {name: evaluator.protocols[name].version for name in config.evaluation.protocols},
        "linear": config.evaluation.linear.as_dict(),
        "labels": config.labels,
        "seed": config.seed,
        "numerics": NUMERICS,
    }
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    plain = config.as_dict()
    return {
        "encoder": {
            "file": encoder.file.name,
            "sha256": sha256,
            "run": encoder.fingerprint,
            "network": encoder.network,
            "clean": clean,
            "statistics": statistics,
            "assumed": list(encoder.assumed),
            "keys": asdict(encoder.keys),
        },
        "dataset": data.dataset.name,
        "scale": config.scale.name,
        "seed": config.seed,
        "fingerprint": fingerprint,
        "results": {net: {name: score.percent for name, score in found.items()} for net, found in scores.items()},
        "protocols": identity["protocols"],
        "baselines": VERSIONS,
        "notes": {
            net: {name: score.notes for name, score in found.items() if score.notes} for net, found in scores.items()
        },
        "numerics": NUMERICS,
        "data_digest": data.digest,
        "images": {part: len(getattr(data.parts, part)) for part in ("bank", "probe", "validation")}
        | {"test": len(data.splits["test"])},
        "skipped_images": {split: len(images.skipped) for split, images in data.splits.items()},
        "code": code_version(),
        "environment": environment(),
        "config": without_places({key: plain[key] for key in ("dataset", "evaluation", "subset", "labels")}),
    }
