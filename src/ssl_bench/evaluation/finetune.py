"""Fine-tuning: the whole network is trained on labelled images, with a linear classifier at its end.

A fixed number of SGD steps with Nesterov momentum, the learning rate falling to 0 along a cosine (Chen et al. 2020,
appendix B.8). Views are the clean one, shifted and flipped (He et al. 2016, section 4.2).

Letters: N images, F feature width, C classes, B images of a step, H × W pixels.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.batch import to_device
from ssl_bench.distributed import share_network
from ssl_bench.evaluation.features import Features, Splits, Tunable, cleaned
from ssl_bench.evaluation.precision import full_float32
from ssl_bench.schedules import cosine

SHIFT = 1 / 8  # of the side, at most: four of 32 pixels
MOMENTUM = 0.1  # of BatchNorm's running statistics, as PyTorch has it


class Classifier(nn.Module):
    """A copy of a backbone and a linear classifier whose weights start at 0."""

    def __init__(self, backbone: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        self.head = nn.Linear(width, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.requires_grad_(True)
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.shared = False  # type: ignore[assignment]  # every rank trains on the same images
                if module.momentum == 0.0:
                    module.momentum = MOMENTUM  # a teacher's statistics rest while another network's are taken over

    def forward(self, images: Tensor) -> Tensor:
        """Scores of every class ``[N, C]``; finite, so that one that has diverged is right by chance alone."""
        scores: Tensor = self.head(self.backbone(images)).nan_to_num()
        return scores


@dataclass(frozen=True, slots=True)
class Tuned:
    """What the chosen classifier makes of all images, and how it was chosen."""

    scores: Splits  # [N, C]
    learning_rate: float
    validation_percent: float


@dataclass(frozen=True, slots=True)
class FineTuning:
    """How a network is fine-tuned; the same images and draw give the same classifier."""

    learning_rates: tuple[float, ...]
    steps: int
    batch_size: int  # B
    momentum: float
    weight_decay: float
    flip: float  # share of mirrored images

    def fit(self, network: Tunable, train: Features, classes: int, draw: int) -> Tuned:
        """Train with every learning rate and keep the best on validation images, the first among equals.

        Args:
            train: the images to train on, and the width of the features.
            draw: the seed of the order of images, shifts and flips, and of what is random in the network.
        """
        best: Tuned | None = None
        for rate in self.learning_rates:
            scores = network.embed(self.train(network, train, classes, rate, draw))
            right = scores.validation.x.argmax(1) == scores.validation.labels
            percent = 100 * int(right.sum()) / len(right)
            if best is None or percent > best.validation_percent:
                best = Tuned(scores, rate, percent)
        assert best is not None
        return best

    def train(self, network: Tunable, train: Features, classes: int, rate: float, draw: int) -> Classifier:
        """A classifier, trained with one learning rate."""
        device, clean = network.device, network.clean.to(network.device)
        generator = torch.Generator().manual_seed(draw)
        positions = in_epochs(train.index.sort().values.cpu(), self.steps * self.batch_size, generator)
        with (
            full_float32(device),
            torch.enable_grad(),
            torch.random.fork_rng([device] if device.type == "cuda" else []),
        ):
            torch.manual_seed(draw)
            classifier = Classifier(network.backbone, train.x.shape[1], classes)
            classifier.to(device).to(memory_format=torch.channels_last)
            classifier.train()
            optimizer = torch.optim.SGD(
                classifier.parameters(), rate, self.momentum, weight_decay=self.weight_decay, nesterov=True
            )
            for step, batch in enumerate(network.drawn(positions, self.batch_size)):
                batch = batch.to(device)
                with torch.no_grad():
                    images = cleaned(clean, batch.images, batch.sizes)
                    images = moved(images, *self.offsets(images, generator))
                loss = F.cross_entropy(classifier(images.contiguous(memory_format=torch.channels_last)), batch.labels)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.param_groups[0]["lr"] = cosine(rate, 0.0, step / self.steps)
                optimizer.step()
        share_network(classifier)  # of which every rank embeds its share of images; cards may round differently
        return classifier

    def offsets(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Shifts ``[N, 2]``, down and to the right, in pixels, and which images are flipped ``[N]``."""
        most = torch.tensor([math.floor(side * SHIFT) for side in images.shape[-2:]])
        shift = (torch.rand(len(images), 2, generator=generator) * (2 * most + 1)).floor().long() - most
        return shift, torch.rand(len(images), generator=generator) < self.flip


def in_epochs(index: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` of ``index``, epoch after epoch, each in a new order."""
    epochs = -(-count // len(index))
    return torch.cat([index[torch.randperm(len(index), generator=generator)] for _ in range(epochs)])[:count]


def moved(images: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    """Images ``[N, C, H, W]``, each moved by its ``shift`` (0 moves in, the mean colour), then mirrored or not."""
    height, width = images.shape[-2:]
    down, right = int(shift[:, 0].abs().max()), int(shift[:, 1].abs().max())
    padded = F.pad(images, (right, right, down, down))
    rows = torch.arange(height) + down - shift[:, :1]  # [N, H]
    columns = torch.arange(width).expand(len(images), -1)
    columns = torch.where(flip[:, None], columns.flip(1), columns) + right - shift[:, 1:]  # [N, W]
    n = torch.arange(len(images))[:, None, None]
    n, rows, columns = (to_device(at, images.device) for at in (n, rows[:, :, None], columns[:, None, :]))
    return padded.permute(0, 2, 3, 1)[n, rows, columns].permute(0, 3, 1, 2)
