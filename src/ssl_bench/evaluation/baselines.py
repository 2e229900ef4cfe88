"""What every network is measured against: the same network with random weights, and raw pixels.

They are scored once per images, network, seed and version of the protocols, and kept beside the runs.
"""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from ssl_bench.batch import Batch
from ssl_bench.distributed import on_rank_zero, rank
from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluator import Evaluator, Loader, Scores
from ssl_bench.evaluation.features import THUMBNAIL, cleaned
from ssl_bench.evaluation.precision import full_float32
from ssl_bench.evaluation.protocols import FineTuned
from ssl_bench.evaluation.score import Score
from ssl_bench.files import name_of, write_text

CALIBRATION_IMAGES = 2048  # for the BatchNorm statistics of random weights
CALIBRATION_BATCH = 256


def versions(size: int) -> dict[str, int]:
    """Of each baseline on images of ``size`` pixels a side; records with different versions are not compared.

    Raised whenever a baseline's numbers change: raw pixels of large images became those of thumbnails.
    """
    return {"random": 2, "pixels": 2 if size > THUMBNAIL else 1}


def random_scores(
    backbone: nn.Module, evaluator: Evaluator, bank: Loader, device: torch.device, names: Sequence[str]
) -> Scores:
    """Random weights on test images, with untouched BatchNorm statistics or with ones measured on images of the bank.

    For each protocol validation images decide between the two, and leave them untouched where there are none to
    decide; the notes hold which it was. bank: all its images, the same on every rank.
    """
    backbone = backbone.to(device)
    candidates = {"untouched": evaluator.features(backbone, device)}
    if len(bank.index) > 1 and _norms(backbone):
        measured = copy.deepcopy(backbone)  # features are embedded when they are read
        # Dropout, which some networks have, is drawn anew and alike whatever was drawn before.
        with full_float32(device), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            update_bn(calibration_batches(bank, evaluator.clean.to(device), device), measured)
        candidates["measured"] = evaluator.features(measured, device)
    scores = {}
    for name in names:
        # Training measures the statistics itself.
        open_to = ["untouched"] if isinstance(evaluator.protocols[name], FineTuned) else candidates
        on_validation = {
            which: evaluator.score(candidates[which], [name], "validation")[name].percent or 0.0 for which in open_to
        }
        best = max(on_validation, key=on_validation.__getitem__)  # the first among equals
        best = on_rank_zero(partial(str, best))  # cards may round differently, and the test part is shared out
        score = evaluator.score(candidates[best], [name], "test")[name]
        scores[name] = Score(score.percent, score.predictions, {**score.notes, "statistics": best})
    return scores


def calibration_batches(bank: Loader, clean: nn.Module, device: torch.device) -> Iterator[Tensor]:
    """The first CALIBRATION_IMAGES of the bank as a network sees them, in equal batches.

    However the loader cuts them: a batch of one has no statistics where a layer sees a single pixel of each image.
    """
    batches: list[Batch] = []
    for batch in bank:
        batches.append(batch)
        if sum(map(len, batches)) >= CALIBRATION_IMAGES:
            break
    images = torch.cat([batch.images for batch in batches])[:CALIBRATION_IMAGES]
    originals = [batch.sizes for batch in batches if batch.sizes is not None]
    sizes = torch.cat(originals)[:CALIBRATION_IMAGES] if originals else None
    count = math.ceil(len(images) / CALIBRATION_BATCH)
    for i, part in enumerate(images.tensor_split(count)):
        yield cleaned(clean, part.to(device), None if sizes is None else sizes.tensor_split(count)[i])


def _norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def kept(folder: Path, identity: Mapping[str, Any], compute: Callable[[], Scores]) -> Scores:
    """The scores that ``folder`` keeps under ``identity``, all that they depend on; computed if there are none.

    A file that is damaged counts as none. Every rank calls this; the first alone reads and writes.
    """
    path = folder / f"{name_of(identity)}.json"
    scores = on_rank_zero(lambda: _read(path))
    if scores is None:
        scores = compute()
        if rank() == 0:
            _write(path, identity, scores)
    return scores


def _write(path: Path, identity: Mapping[str, Any], scores: Scores) -> None:
    plain = {
        name: {
            "percent": score.percent,
            "notes": score.notes,
            "predictions": None if score.predictions is None else score.predictions.tolist(),
        }
        for name, score in scores.items()
    }
    content = {"identity": identity, "sha256": _digest(plain), "scores": plain}
    # Without it the next run computes them again, as it does while another process is writing the very same.
    with suppress(OSError, UserError, Timeout):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=0):
            write_text(path, json.dumps(content))


def _read(path: Path) -> Scores | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["sha256"] != _digest(content["scores"]):
            return None
        return {
            name: Score(
                score["percent"],
                None if score["predictions"] is None else torch.tensor(score["predictions"], dtype=torch.int64),
                score["notes"],
            )
            for name, score in content["scores"].items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _digest(scores: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(scores, sort_keys=True).encode()).hexdigest()
