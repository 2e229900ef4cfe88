"""SwAV (Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments").

    L = Σ_{i full-size} Σ_{v ≠ i} ℓ(z_v, q_i) / pairs,   ℓ(z, q) = −Σ_k q⁽ᵏ⁾ log softmax(zᵀC / T)⁽ᵏ⁾   (eqs. 1, 2, 6)
    q_i: Sinkhorn–Knopp assignment of the global batch's full-size view i to P prototypes, equally used   (eqs. 3–5)

C: unit prototypes; z: embeddings of unit length. No gradient flows through the codes q. Where the batch is smaller
than the number of prototypes, embeddings of earlier batches, one queue per full-size view, take part in the
assignment. Prototypes rest for the first epochs. ``codes: hard`` keeps of each code its largest share alone, as 1.

Deviations: where ε is so small that exponentials underflow, Sinkhorn iterates on logarithms; every rank computes the
assignment of all ranks' rows and keeps its own, and has the queues whole, which the released code divides over ranks;
they fill from the first step on, where its own are created empty at the first epoch with a queue.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_bench.errors import UserError
from ssl_bench.losses import over_pairs
from ssl_bench.methods.base import Loss, Method, Parts, Step
from ssl_bench.nn.queue import Queues

SAFE_EXPONENT = 80.0  # exp(−80) is far from underflow in float32


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int, rows: int | None = None) -> Tensor:
    """Codes ``[N, P]`` of cosines ``[N, P]``: rows sum to 1, columns nearly to N / P (eq. 5, section 3.1).

    Starts from exp(scores / epsilon) and in turn gives all prototypes, then all images, equal mass. Larger ``epsilon``
    makes the codes softer. ``rows`` asks for the codes of the first so many images only.
    """
    if 2 / epsilon > SAFE_EXPONENT:
        log = scores / epsilon
        for _ in range(iterations):
            log = log - log.logsumexp(0, keepdim=True)  # every prototype the same
            log = log - log.logsumexp(1, keepdim=True)  # every image 1
        return log[:rows].exp()
    # The same, five times as fast: only factors of rows and columns change. One maximum for all, since one for each
    # row would give other codes after finitely many iterations.
    kernel = scores.sub(scores.max()).div_(epsilon).exp_()
    images = scores.new_ones(len(scores))
    for _ in range(iterations):
        prototypes = 1 / (images @ kernel)
        images = 1 / (kernel @ prototypes)
    return images[:rows, None] * kernel[:rows] * prototypes


def unit_targets(step: Step) -> list[Tensor]:
    """The full-size views' embeddings of the global batch at unit length, ``[N, D]`` each, without gradient."""
    return [F.normalize(z.detach(), dim=1) for z in step.gathered_targets]


class SwAV(Method):
    """Predict the cluster of one view from the others; clusters are balanced over the batch."""

    def __init__(
        self,
        parts: Parts,
        *,
        prototypes: int,
        temperature: float,
        epsilon: float,
        iterations: int,
        codes: str,
        freeze_epochs: int,
        queue: int | None,
        queue_from: int,
    ) -> None:
        super().__init__(parts)
        self.require_views(full_size=2, smaller=True)
        if prototypes < 2:
            raise UserError(f"method.prototypes={prototypes}: one cluster cannot separate images, choose at least 2.")
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations
        self.hard = codes == "hard"
        self.freeze_epochs = freeze_epochs
        self.queue_from = queue_from
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, self.width), dim=1))
        self.queues = Queues(2, queue, self.width, step=self.recipe.batch_size) if queue else None

    def loss(self, step: Step) -> Loss:
        scores = [F.normalize(z, dim=1) @ self.prototypes.T for z in step.predictions]  # [n, P]
        own = slice(step.batch.place.first, step.batch.place.first + len(step.batch))
        codes = [self.codes(rows, view)[own] for view, rows in enumerate(unit_targets(step))]  # [n, P]
        loss = over_pairs(self.prediction_loss, scores, codes)
        return loss, {"loss_over_ln_p": loss.detach() / math.log(len(self.prototypes))}  # 1: all prototypes alike

    def collect(self, step: Step) -> list[Tensor] | None:
        return None if self.queues is None else unit_targets(step)

    def prediction_loss(self, scores: Tensor, codes: Tensor) -> Tensor:
        """ℓ(z, q) of one view's scores and another's codes, ``[n, P]`` each (eq. 2)."""
        return -(codes * F.log_softmax(scores / self.temperature, dim=1)).sum(1).mean()

    @torch.no_grad()
    def codes(self, rows: Tensor, view: int) -> Tensor:
        """Assignment ``[N, P]`` of a full-size view's unit embeddings ``[N, D]``, among the queue's once that is on."""
        everything = rows
        if self.queues is not None and self.epoch >= self.queue_from:
            queue = list(self.queues)[view]
            if queue.full:
                everything = torch.cat([rows, queue.rows.to(rows)])
        scores = everything @ self.prototypes.T
        codes = sinkhorn(scores, epsilon=self.epsilon, iterations=self.iterations, rows=len(rows))
        return torch.zeros_like(codes).scatter_(1, codes.argmax(1, keepdim=True), 1.0) if self.hard else codes

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Zero and not None, on which a fused optimiser insists; the weight decay that is left only shortens them.
        if self.epoch <= self.freeze_epochs and self.prototypes.grad is not None:
            self.prototypes.grad.zero_()

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        self.prototypes.copy_(F.normalize(self.prototypes, dim=1))
        if self.queues is not None:
            self.queues.push(self.collected)
