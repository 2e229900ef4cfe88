"""DirectPred (Tian, Chen & Ganguli 2021, "Understanding Self-Supervised Learning Dynamics without Contrastive Pairs").

BYOL with a linear predictor W that is not trained but set from the correlation F of its inputs:

    F ← ρF + (1 − ρ) E[f fᵀ],   F = U diag(s) Uᵀ,   W = U diag(p) Uᵀ                                 (section 4)
    pⱼ = √(sⱼ / s_max) + ε      ("outside");      pⱼ = √(sⱼ / s_max + ε)      ("inside")             (eqs. 18, 19)

f: the student's embeddings. The cosine loss ignores the scale of W, so dividing by s_max only says what ε is compared
with. Baselines: ``kind: linear`` (W trained by gradient), ``two_layer`` (BYOL's), ``optimal`` (the W of
least squares, E[z' fᵀ] (F + εI)⁻¹), and with ``momentum: 0`` no moving average at all. With
``stop_gradient: false`` z' are the student's own embeddings with their gradient, no teacher's.

Deviations: directions are averaged (``symmetrize: mean``); ``center`` subtracts each batch's own mean; the teacher
starts as a copy of the student; after the optimiser's step, W is set at steps 0, freq, 2·freq, … and follows the
gradient in between.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ssl_bench.distributed import gather
from ssl_bench.errors import UserError
from ssl_bench.losses import full_precision, normalized_mse, over_pairs
from ssl_bench.methods.base import EMATeacher, Loss, Parts, Step

FLOOR = 1e-4  # of the predictor's eigenvalues, or of their squares under `inside`, as in the released code


@torch.no_grad()
def direct_predictor(correlation: Tensor, *, epsilon: float, epsilon_place: str) -> Tensor:
    """W ``[D, D]``, symmetric, for the correlation F ``[D, D]`` (eqs. 18, 19)."""
    s, u = torch.linalg.eigh(full_precision(correlation))
    s = s.clamp(min=0) / s.max().clamp(min=torch.finfo(s.dtype).tiny)  # in [0, 1]
    p = (s + epsilon).clamp(min=FLOOR).sqrt() if epsilon_place == "inside" else (s.sqrt() + epsilon).clamp(min=FLOOR)
    weight: Tensor = (u * p) @ u.T
    return weight


class DirectPred(EMATeacher):
    """Predict the teacher's embedding through a linear map that knows the embeddings' spectrum."""

    correlation: Tensor  # F [D, D]
    cross_correlation: Tensor  # E[z' fᵀ] [D, D]

    def __init__(
        self,
        parts: Parts,
        *,
        momentum: float,
        momentum_schedule: str,
        kind: str,
        predictor: nn.Module,
        predictor_lr_scale: float,
        freq: int,
        rho: float,
        epsilon: float,
        epsilon_place: str,
        center: bool,
        stop_gradient: bool,
        symmetrize: str,
    ) -> None:
        super().__init__(parts, momentum=momentum, momentum_schedule=momentum_schedule)
        self.require_views(full_size=2, smaller=True)
        if kind == "optimal" and epsilon < 0:
            raise UserError(f"method.epsilon={epsilon}: least squares (method.kind=optimal) wants at least 0.")
        self.kind = kind
        self.predictor: nn.Module = predictor if kind == "two_layer" else nn.Linear(self.width, self.width, bias=False)
        self.predictor_lr_scale = predictor_lr_scale
        self.freq = freq
        self.rho = rho
        self.epsilon = epsilon
        self.epsilon_place = epsilon_place
        self.center = center
        self.stop_gradient = stop_gradient
        self.symmetrize = symmetrize
        if kind in ("direct", "optimal"):
            # Set after every step, it needs no gradient, which would only count when gradients are clipped.
            self.predictor.requires_grad_(freq > 1)
            self.register_buffer("correlation", torch.zeros(self.width, self.width))
        if kind == "optimal":
            self.register_buffer("cross_correlation", torch.zeros(self.width, self.width))

    def loss(self, step: Step) -> Loss:
        targets = self._targets(step)
        mean = over_pairs(normalized_mse, step.predictions, targets)
        return (mean if self.symmetrize == "mean" else len(targets) * mean), {}

    def _targets(self, step: Step) -> list[Tensor]:
        """What the predictions of full-size views are compared with."""
        return step.targets if self.stop_gradient else step.embeddings[: len(step.targets)]

    def collect(self, step: Step) -> list[Tensor] | None:
        if self.kind not in ("direct", "optimal"):
            return None
        inputs = [gather(full_precision(f.detach())) for f in step.embeddings[: len(step.targets)]]  # [N, D]
        optimal = self.kind == "optimal"  # which alone asks what embeddings are to predict
        outputs = [gather(full_precision(z.detach())) for z in self._targets(step)] if optimal else None
        return self.correlations(inputs, outputs)

    @torch.no_grad()
    def correlations(self, f: list[Tensor], z: list[Tensor] | None) -> list[Tensor]:
        """E[f fᵀ] of the global batch, and E[z' fᵀ] unless z is None, ``[D, D]``; f and z: ``[N, D]`` per view."""
        inputs = self._centred(f)
        lefts = [inputs] if z is None else [inputs, self._centred(z[::-1])]  # each is to predict the other view
        return [(left.T @ inputs / len(inputs)).to(self.correlation) for left in lefts]

    @property
    def averages(self) -> list[Tensor]:
        """F and, for ``kind=optimal``, E[z' fᵀ]: the moving averages of what is collected."""
        return [self.correlation, self.cross_correlation] if self.kind == "optimal" else [self.correlation]

    def _centred(self, views: list[Tensor]) -> Tensor:
        rows = torch.cat(views)
        return rows - rows.mean(0) if self.center else rows

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        super().after_optimizer_step()
        if self.kind not in ("direct", "optimal"):
            return
        keep = self.rho if self.student_steps > 1 else 0.0  # the first step starts the average
        for average, batches in zip(self.averages, zip(*self.collected, strict=True), strict=True):
            average.lerp_(torch.stack(batches).mean(0), 1 - keep)
        if (self.student_steps - 1) % self.freq == 0:
            weight: Tensor = self.predictor.weight  # type: ignore[assignment]
            weight.copy_(self.solved())

    def solved(self) -> Tensor:
        """The predictor's weights ``[D, D]`` that the correlations ask for; UserError where there are none."""
        try:
            # On the CPU alone: to look at an accelerator's is to wait for it, and there the loss shows it a step later.
            looked_at = self.correlation.device.type == "cpu"
            if looked_at and not all(bool(one.isfinite().all()) for one in self.averages):
                raise LinAlgError
            if self.kind == "direct":
                return direct_predictor(self.correlation, epsilon=self.epsilon, epsilon_place=self.epsilon_place)
            unit = torch.eye(self.width, dtype=self.correlation.dtype, device=self.correlation.device)
            regularised = self.correlation + self.epsilon * unit
            solution, info = torch.linalg.solve_ex(regularised, self.cross_correlation.T)
            if looked_at and info:
                raise UserError(
                    f"the correlation of DirectPred's embeddings is singular at step {self.student_steps}, so that "
                    f"least squares has no solution at method.epsilon={self.epsilon}: choose one above 0."
                )
            weight: Tensor = solution.T
            return weight
        except LinAlgError:
            raise UserError(
                f"the correlation of DirectPred's embeddings is not finite at step {self.student_steps}: "
                "try a lower optimizer.lr or trainer.precision=32-true."
            ) from None
