"""CLBO (Chen, Ji & Yuan 2022, "Contrastive Learning Based on Bilevel Optimization of Pseudo Siamese Networks").

Lower level, the student θ (eq. 1):     min_θ  L_InfoNCE(θ, ξ) + (λ_e / 2) ‖θ − ξ‖²
Upper level, the teacher ξ (eqs. 2, 3): ξ ← ξ + τ_e λ_e (θ − ξ) after K student steps

The student's first-order optimality turns the gradient of the lower level's value with respect to ξ into λ(ξ − θ),
the gradient of a Moreau envelope; eq. 3 is one SGD step of rate τ on it. With K = 1 it is an exponential moving
average with η = 1 − τλ (eq. 4). λ_e = λe and τ_e = τ/e for epochs e = 1, 2, …, so their product κ = τλ is constant; the
paper's text argues with a step that decays, κ/e, which is the other choice (``teacher_schedule``).
The deployed encoder is the teacher's.

Algorithm 1: for every teacher step, K times { new images, new augmentations, one student step }; then the teacher
step. The student is not reset to the teacher.

Choices where the paper is silent: the knobs are κ (``teacher_step``) and λ (``proximal``), so κ keeps its meaning
without a proximal term and τ = κ/λ is a consequence; the teacher starts as a copy; InfoNCE is SimCLR's, with the
teacher's embeddings as candidates; the proximal gradient goes through the optimiser's momentum like any other, but
under Muon, where it acts apart from the momentum; under AdamW and LARS, whose steps divide by the size of the gradient,
no λ is derived (``proximal=auto`` is 0).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from ssl_bench import teachers
from ssl_bench.conditions import require_gradients_apart
from ssl_bench.distributed import gather
from ssl_bench.errors import UserError
from ssl_bench.losses import barlow_twins, info_nce, normalized_mse, nt_xent, over_pairs, vicreg
from ssl_bench.methods.base import Loss, Method, Network, Parts, Step
from ssl_bench.nn.norm import batch_norms
from ssl_bench.optim import Muon


class CLBO(Method):
    """A pseudo-siamese student and teacher optimised in two levels. Options: ``conf/method/clbo.yaml``."""

    evaluated = "teacher"

    def __init__(
        self,
        parts: Parts,
        *,
        objective: str,
        temperature: float,
        negatives: str,
        lookahead: int,
        lookahead_batch: str,
        epoch_unit: str,
        restart: bool,
        proximal: float,
        teacher_step: float,
        teacher_rule: str,
        teacher_schedule: str,
        teacher_buffers: str,
        predictor: nn.Sequential,
        off_diagonal: float,
        invariance: float,
        variance: float,
        covariance: float,
    ) -> None:
        super().__init__(parts)
        self.require_views(full_size=2, smaller=True)
        if lookahead < 1:
            raise UserError(f"method.lookahead={lookahead}: the student takes at least 1 step per teacher step.")
        self.predictor = predictor if len(predictor) else None
        self.objective = objective
        self.barlow_twins = partial(barlow_twins, off_diagonal=off_diagonal)
        self.vicreg = partial(vicreg, invariance=invariance, variance=variance, covariance=covariance)
        self.temperature = temperature
        self.negatives = negatives
        self.lookahead = lookahead
        self.lookahead_batch = lookahead_batch
        self.restart = restart
        self.proximal = proximal
        self.teacher_step = teacher_step
        self.every = 1 if teacher_rule == "ema" else lookahead  # student steps per teacher step
        self.teacher_schedule = teacher_schedule
        self.teacher_buffers = teacher_buffers
        self.teacher: Network = teachers.twin(parts.teacher_init or self.student)
        if teacher_buffers != "own":  # its forward passes leave the statistics alone, only the teacher step moves them
            for norm in batch_norms(self.teacher):
                norm.momentum = 0.0
        # A batch that is looked at K times already gives K student steps per pass over the data.
        fresh = lookahead_batch == "fresh"
        self.passes_per_epoch = lookahead if epoch_unit == "teacher" and fresh else 1

    def on_fit_start(self) -> None:
        require_gradients_apart(self.lookahead_batch, self.lookahead, self.trainer.accumulate_grad_batches)

    def loss(self, step: Step) -> Loss:
        if self.objective == "mse":
            return over_pairs(normalized_mse, step.predictions, step.targets), {}
        candidates = step.gathered_targets  # [N, D]
        if self.objective == "info_nce":
            first, temperature = step.batch.place.first, self.temperature
            if self.negatives == "both_views":
                loss = nt_xent(step.predictions, candidates, first=first, temperature=temperature, normalize=True)
                return loss, {}
            return over_pairs(partial(info_nce, first=first, temperature=temperature), step.predictions, candidates), {}
        statistics = self.barlow_twins if self.objective == "barlow_twins" else self.vicreg
        return over_pairs(statistics, [gather(v) for v in step.predictions], candidates), {}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Add λ_e(θ − ξ): after unscaling, before clipping, and so through momentum like any gradient.

        Muon's steps are as long whatever the gradient: as with weight decay, the student takes the term's step itself.
        """
        strength = self.proximal * self.epoch
        if not strength:
            return
        if isinstance(optimizer, Muon):
            rates = {p: group["lr"] * strength for group in optimizer.param_groups for p in group["params"]}
            optimizer.before_move = partial(teachers.step_back, self.student, self.teacher, rates)
        else:
            teachers.add_proximal_gradient(self.student, self.teacher, strength)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """K student steps on one batch, or one where every lookahead step sees a batch of its own."""
        repeats = 1 if self.lookahead_batch == "fresh" else self.lookahead
        for repeat in range(repeats):
            self.draw = repeat if self.lookahead_batch == "same_images" else 0
            super().optimizer_step(*args, **kwargs)
        self.draw = 0

    def after_optimizer_step(self) -> None:
        """ξ ← ξ + κ(θ − ξ) after every K-th real student step, counted across epochs."""
        if self.student_steps % self.every:
            return
        rate = self.teacher_step / (self.epoch if self.teacher_schedule == "decay" else 1)
        teachers.step_towards(self.teacher, self.student, rate)
        if self.teacher_buffers != "own":
            teachers.follow_buffers(self.teacher, self.student, 1.0 if self.teacher_buffers == "copy" else rate)
        if self.restart:
            teachers.step_towards(self.student, self.teacher, 1.0)
