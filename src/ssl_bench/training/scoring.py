"""The final scores of a run or of any encoder, and the part of the record that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ssl_bench import distributed
from ssl_bench.callbacks.accuracy_monitor import AccuracyMonitor
from ssl_bench.config.schema import Config
from ssl_bench.data.datamodule import DataModule
from ssl_bench.data.image_warnings import ImageWarnings
from ssl_bench.evaluation import baselines
from ssl_bench.evaluation.evaluator import Evaluator, Scores
from ssl_bench.evaluation.protocols import with_top5
from ssl_bench.methods.base import Method
from ssl_bench.report.figures import tsne_picture
from ssl_bench.results.encoder import save_encoder
from ssl_bench.results.fingerprint import NUMERICS
from ssl_bench.results.record import PROJECTOR, Record, environment, without_places
from ssl_bench.results.run_folder import RunFolder
from ssl_bench.training.build import baseline_scores, clean_arguments

PICTURE_IMAGES = 1000


def final_scores(
    config: Config, data: DataModule, method: Method, monitor: AccuracyMonitor, folder: RunFolder
) -> dict[str, Scores]:
    """The final table: trained networks, random weights and raw pixels under the same protocols, on test images.

    The deployed encoder is saved, and a picture of its features.
    """
    dataset, evaluator = data.dataset, monitor.evaluator
    names, device = with_top5(config.evaluation.protocols, dataset.classes), method.device
    network, clean = {**config.backbone.as_dict(), "channels": dataset.channels}, clean_arguments(config, dataset)
    scores: dict[str, Scores] = {}
    for name, backbone in method.networks().items():
        # Unless the run was interrupted after its last epoch, the monitor has just embedded all.
        splits = monitor.last.pop(name, None) or evaluator.features(backbone, device)
        scores[name] = evaluator.score(splits, names, "test")
        test = splits.test  # on every rank, should it not have been embedded yet
        if name == method.evaluated:
            description = {"backbone": network, "clean": clean, "network": name, "fingerprint": folder.fingerprint}
            draw = partial(
                tsne_picture,
                folder.picture,
                test.x,
                test.labels,
                names=dataset.class_names,
                title=f"{config.method.name} on {dataset.name}: {name} features of test images, t-SNE",
                seed=0,
                limit=PICTURE_IMAGES,
            )
            # A full disk is an error of all ranks, else the others would wait at the next exchange until it times out.
            distributed.on_rank_zero(partial(save_encoder, folder.encoder, backbone, description))
            distributed.on_rank_zero(draw)
    if config.evaluation.projector:
        whole = getattr(method, method.evaluated)
        scores[PROJECTOR] = evaluator.score(evaluator.features(whole, device), names, "test")
    return scores | baseline_scores(config, data, evaluator, device, network=network, clean=clean)


def record_of_scores(
    scores: Mapping[str, Scores],
    config: Config,
    data: DataModule,
    evaluator: Evaluator,
    seen: ImageWarnings,
    *,
    fingerprint: str,
    code: dict[str, Any],
    protocols: Sequence[str],
    parts: Sequence[str],
) -> Record:
    """The record of ``scores`` by network, without what only runs or only evaluations have.

    seen: of the images. protocols: whose versions it holds. parts: of the images, beside the test split.
    """
    return Record(
        dataset=data.dataset.name,
        scale=config.scale.name,
        seed=config.seed,
        fingerprint=fingerprint,
        results={net: {name: score.percent for name, score in found.items()} for net, found in scores.items()},
        protocols={name: evaluator.protocols[name].version for name in protocols},
        baselines=baselines.versions(config.dataset.size),
        notes={
            net: {name: score.notes for name, score in found.items() if score.notes} for net, found in scores.items()
        },
        numerics=NUMERICS,
        data_digest=data.digest,
        images={part: len(getattr(data.parts, part)) for part in parts} | {"test": len(data.splits["test"])},
        skipped_images={split: len(images.skipped) for split, images in data.splits.items()},
        test_images_in_train=seen.test_images_in_train,
        contradictory_train_images=seen.contradictory_train_images,
        code=code,
        environment=environment(),
        config=without_places(config.as_dict()),
    )


def predictions(scores: Mapping[str, Scores], data: DataModule) -> dict[str, Any]:
    """Per test image: its label, and what every network predicts under every protocol."""
    arrays: dict[str, Any] = {"labels": data.splits["test"].labels.numpy()}
    for network, found in scores.items():
        for name, score in found.items():
            if score.predictions is not None:
                arrays[f"{network}/{name}"] = score.predictions.cpu().numpy()
    return arrays
