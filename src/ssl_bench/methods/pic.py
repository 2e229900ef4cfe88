"""PIC (Cao et al. 2020, "Parametric Instance Classification for Unsupervised Visual Feature Learning").

    L = −mean_i log softmax_j( cos(w_j, z_i) / T )[y_i]

Every image is a class of its own: y_i is its place among the R pretraining images, w_j a trained vector without a bias.
One branch and one view. With multi-crop, one cross-entropy runs over all crops; small ones do not move the weights.

What makes it feasible for many images: the order of images is a sliding window, so that a class is soon seen
again; the softmax runs over the classes A of the batch and the K most recently visited (``negatives``); classes
outside A get the momentum and weight decay they have missed when they are next in A, here exactly. What the paper
compares with these (tables 1 and 2) are ``softmax=plain``, over inner products, and ``weight_correction=false``.

Deviations: shared heads and optimiser, no zero-initialised residual branches; clipping does not see the weights; under
Muon they keep SGD's weight decay, through gradient and momentum, by the network's λ, which Muon applies apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_bench.conditions import require_own_sgd
from ssl_bench.distributed import gather, mean_over_ranks
from ssl_bench.losses import full_precision
from ssl_bench.methods.base import Loss, Method, Parts, Step
from ssl_bench.nn.lazy_sgd import LazySGD
from ssl_bench.nn.recency import newest_first

INITIAL_STD = 0.01  # of the instance weights


class Visit(NamedTuple):
    """The classes of one batch."""

    own: Tensor  # int64 [n], of this rank's images
    visited: Tensor  # int64 [N], of all ranks' images, in rank order
    active: Tensor  # int64 [A], sorted; the same on every rank
    weights: Tensor  # [A, D], a leaf that gathers gradient


def instance_loss(
    crops: Sequence[Tensor], weights: Tensor, labels: Tensor, *, full_size: int, temperature: float, cosine: bool
) -> Tensor:
    """Cross-entropy of each crop's own class among A, mean over crops and rows; ln A when all logits are equal.

    Logits are cosines, or inner products, divided by the temperature. crops: ``[n, D]`` each, full-size ones first;
    weights: ``[A, D]``, not reached by the gradient of smaller crops; labels: int64 ``[n]``, row of the image's class
    in ``weights``.
    """

    def ready(rows: Tensor) -> Tensor:
        return F.normalize(full_precision(rows), dim=1) if cosine else full_precision(rows)

    classes = ready(weights)  # [A, D]
    logits = [
        ready(z) @ (classes if crop < full_size else classes.detach()).T for crop, z in enumerate(crops)
    ]  # [n, A] per crop; cosines in [−1, 1]
    return F.cross_entropy(torch.cat(logits) / temperature, labels.repeat(len(crops)))


class PIC(Method):
    """Classify every image as itself. Options: ``conf/method/pic.yaml``.

    ``instances`` are the sorted positions of the R pretraining images in the full dataset.
    """

    instances: Tensor  # int64 [R]
    recent: Tensor  # int64 [K], distinct classes, newest first; behind them −1

    def __init__(
        self,
        parts: Parts,
        *,
        softmax: str,
        temperature: float,
        negatives: int | None,
        weight_correction: bool,
        instances: Tensor,
    ) -> None:
        super().__init__(parts)
        self.require_views(full_size=1, smaller=True)
        self.loss_of = partial(instance_loss, temperature=temperature, cosine=softmax == "cosine")
        self.negatives = negatives
        self.weight_correction = weight_correction
        # Buffers, not parameters: a dense optimiser and a dense all-reduce would visit all R rows at every step.
        self.classes = LazySGD(
            INITIAL_STD * torch.randn(len(instances), self.width),
            momentum=self.recipe.momentum,
            weight_decay=self.recipe.weight_decay,
        )
        self.register_buffer("instances", instances, persistent=False)
        self.register_buffer("recent", torch.full((min(negatives or 0, len(instances)),), -1))
        self.collected: list[Visit] = []

    def on_fit_start(self) -> None:
        require_own_sgd(type(self).__name__, self.recipe.name, str(self.trainer.precision))

    def configure_optimizers(self) -> Any:
        total = int(self.trainer.estimated_stepping_batches)
        factor = self.recipe.factor(total, max(1, total // self.epochs))
        self.classes.follow([self.recipe.peak_lr * factor(step) for step in range(total)])
        return super().configure_optimizers()

    def collect(self, step: Step) -> Visit:
        own = torch.searchsorted(self.instances, step.batch.index)
        visited = gather(own)
        active = self.active(visited)
        if self.negatives is not None and self.weight_correction:  # the others took the last step
            self.classes.catch_up(visited, self.student_steps)
        return Visit(own, visited, active, self.classes.leaf(active))

    def loss(self, step: Step) -> Loss:
        visit = self.collected[-1]
        labels = torch.searchsorted(visit.active, visit.own)
        return self.loss_of(step.predictions, visit.weights, labels, full_size=self.views.full_size), {}

    def active(self, visited: Tensor) -> Tensor:
        """A, sorted: the classes of the batch and the K most recently visited, or all."""
        if self.negatives is None:
            return torch.arange(len(self.instances), device=visited.device)
        recent = self.recent.where(self.recent >= 0, visited[0])  # where nobody stands, one who is there anyway
        classes: Tensor = torch.unique(torch.cat([visited, recent]))
        return classes

    def after_optimizer_step(self) -> None:
        """One SGD step of the active classes; their gradients add up over the batches of the step."""
        visits = self.collected
        active = visits[0].active if len(visits) == 1 else torch.unique(torch.cat([visit.active for visit in visits]))
        gradient = visits[0].weights.new_zeros(len(active), visits[0].weights.shape[1])
        for visit in visits:
            if visit.weights.grad is not None:
                gradient.index_add_(0, torch.searchsorted(active, visit.active), visit.weights.grad)
        self.classes.update(active, mean_over_ranks(gradient), self.student_steps - 1)
        if self.negatives is not None:
            self.recent = newest_first(torch.cat([visit.visited for visit in visits]), self.recent)
