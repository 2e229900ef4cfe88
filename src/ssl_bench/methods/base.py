"""What all methods share: views → embeddings → loss → optimiser step → teacher.

Letters in the method files: n images of this rank, N images of the global batch, V views, G of them full-size,
F feature width, D embedding width, T temperature, K lookahead steps, M queue length, θ student, ξ teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ssl_bench import teachers
from ssl_bench.augment.views import Views
from ssl_bench.batch import Batch
from ssl_bench.conditions import require_batch_statistics, require_views
from ssl_bench.distributed import gather
from ssl_bench.errors import UserError
from ssl_bench.losses import full_precision
from ssl_bench.nn.norm import batch_norms
from ssl_bench.optim import Group, Recipe
from ssl_bench.schedules import cosine


class Network(nn.Module):
    """Backbone and projector of one side, student or teacher."""

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.projector(self.backbone(images))  # [n, D]
        return embedding


@dataclass(frozen=True)
class Parts:
    """What every method is built from, whatever its own options."""

    backbone: nn.Module  # images [n, C, H, W] → features [n, F]
    projector: nn.Module  # features → embeddings [n, D]
    width: int  # D
    views: Views
    optimizer: Recipe
    concat_views: bool  # embed all views of one size in one pass, sharing batch statistics
    teacher_init: Network | None  # what a teacher starts as a copy of; None: the student


@dataclass(frozen=True)
class Step:
    """What the networks make of one batch: all that a loss reads.

    One tensor ``[n, D]`` per view, the G full-size views first; in float32, but for the embeddings under autocast.
    """

    embeddings: list[Tensor]  # the student's, of all V views, with gradient
    predictions: list[Tensor]  # what its predictor makes of them; the embeddings themselves without a predictor
    targets: list[Tensor]  # the teacher's, of G views, without gradient; without a teacher the student's, with gradient
    batch: Batch

    @cached_property
    def gathered_targets(self) -> list[Tensor]:
        """The targets of all ranks in rank order, ``[N, D]`` each, with gradient where the targets have one."""
        return [gather(z) for z in self.targets]


Loss = tuple[Tensor, dict[str, Tensor]]  # the value, and figures to record beside it


class Method(pl.LightningModule):
    """A method is its ``loss``; one with a teacher also defines how the teacher moves.

    Subclasses write ``loss`` and, where needed, ``collect`` and ``after_optimizer_step``. ``evaluated`` names the
    network a paper deploys: ``student`` or ``teacher``. ``passes_per_epoch`` is how many passes over the data one epoch
    of the schedules takes.
    """

    evaluated = "student"
    passes_per_epoch = 1
    predictor_lr_scale = 1.0  # factor on the predictor's learning rate
    predictor_lr_constant = False

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.student = Network(parts.backbone, parts.projector).to(memory_format=torch.channels_last)
        self.teacher: Network | None = None
        self.predictor: nn.Module | None = None
        self.width = parts.width  # D
        self.views = parts.views
        self.recipe = parts.optimizer
        self.concat_views = parts.concat_views
        self.collected: list[Any] = []  # one entry for each batch since the last real optimiser step
        self.draw = 0  # how often the same batch was augmented before
        self.student_steps = 0  # real optimiser steps: one a gradient scaler skips does not count

    def loss(self, step: Step) -> Loss:
        """The method's loss, and figures to record beside it; changes nothing."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def collect(self, step: Step) -> Any:
        """What is kept of a batch, such as keys for a queue; called before its loss.

        The results of all batches of an optimiser step, oldest first, stand in ``collected`` until after
        ``after_optimizer_step``.
        """

    def after_optimizer_step(self) -> None:
        """Move what follows the student; called after every real optimiser step."""

    def embed(self, network: nn.Module, views: list[Tensor]) -> list[Tensor]:
        """Embeddings ``[n, D]`` per view; ``concat_views`` shares batch statistics among views of one size."""
        if not self.concat_views:
            return [network(view) for view in views]
        embeddings: dict[int, Tensor] = {}
        for size in dict.fromkeys(view.shape[-1] for view in views):
            members = [v for v, view in enumerate(views) if view.shape[-1] == size]
            together = network(torch.cat([views[v] for v in members]))
            embeddings.update(zip(members, together.chunk(len(members)), strict=True))
        return [embeddings[v] for v in range(len(views))]

    def run_networks(self, views: list[Tensor], batch: Batch) -> Step:
        """What student, predictor and teacher make of the views of one batch."""
        embeddings = self.embed(self.student, views)
        predictions = embeddings if self.predictor is None else [self.predictor(z) for z in embeddings]
        targets = embeddings[: self.views.full_size]
        if self.teacher is not None:
            with torch.no_grad():
                targets = self.embed(self.teacher, views[: self.views.full_size])
        return Step(embeddings, predictions, targets, batch)

    def collect_and_loss(self, step: Step) -> Loss:
        """Collect from a batch, then its loss, in float32 and outside autocast."""
        predictions, targets = ([full_precision(z) for z in part] for part in (step.predictions, step.targets))
        step = replace(step, predictions=predictions, targets=targets)
        with torch.autocast(self.device.type, enabled=False):
            self.collected.append(self.collect(step))
            found = self.loss(step)
        if not isinstance(found, tuple):
            raise UserError(
                f"{type(self).__name__}.loss is to return the loss and a dict of figures, as in loss, {{}}."
            )
        loss, figures = found
        # All ranks average figures as tensors, and a method of one's own may give plain numbers.
        return loss, {name: torch.as_tensor(figure, device=loss.device) for name, figure in figures.items()}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Loss of one batch, with the embeddings for callbacks."""
        with torch.no_grad():
            views = [
                # Kernels draw views in the precision of autocast, which therefore has nothing to cast.
                view.to(self.dtype if view.dtype == torch.float32 else view.dtype, memory_format=torch.channels_last)
                for view in self.views(batch, draw=self.draw)
            ]
        step = self.run_networks(views, batch)
        loss, figures = self.collect_and_loss(step)
        # Callbacks compare views of one size, and read the value: Lightning divides the loss by the batches that a step
        # accumulates.
        return {
            "loss": loss,
            "value": loss.detach(),
            "embeddings": [z.detach() for z in step.embeddings[: self.views.full_size]],
            "figures": figures,
        }

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Add the gradient of a batch's share of the mean over the batches that its optimiser step takes."""
        # Lightning has divided by `accumulate`, but the last step of an epoch may have fewer batches.
        whole, first = self.trainer.accumulate_grad_batches, self.trainer.fit_loop.batch_idx
        held = min(whole, self.trainer.num_training_batches - first // whole * whole)
        super().backward(loss if held == whole else loss * (whole / held), *args, **kwargs)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the student, then what follows it, if the step was real."""
        before = self.student_steps
        super().optimizer_step(*args, **kwargs)
        if self.student_steps > before:
            self.follow_student()
        else:  # a gradient scaler has skipped the step; what was collected is in no checkpoint
            self.collected.clear()

    def follow_student(self) -> None:
        """What comes after a real optimiser step."""
        self.after_optimizer_step()
        self.collected.clear()

    def _count_step(self, *_: Any) -> None:
        self.student_steps += 1

    def configure_optimizers(self) -> Any:
        """The shared optimiser over everything that requires a gradient, stepped by a per-step schedule."""
        total = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = self.recipe.build(self.parameter_groups(), total, max(1, total // self.epochs))
        optimizer.register_step_post_hook(self._count_step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def parameter_groups(self) -> list[Group]:
        """What is trained, by learning rate; the first group has the recipe's own."""
        scale, constant = self.predictor_lr_scale, self.predictor_lr_constant
        if self.predictor is None or (scale == 1 and not constant):
            return [Group(list(self.parameters()), lr_scale=1.0, constant_lr=False)]
        apart = list(self.predictor.parameters())
        known = set(map(id, apart))
        rest = [p for p in self.parameters() if id(p) not in known]
        return [Group(rest, lr_scale=1.0, constant_lr=False), Group(apart, lr_scale=scale, constant_lr=constant)]

    @property
    def epochs(self) -> int:
        """E, the number of epochs the schedules count."""
        return max(1, (self.trainer.max_epochs or 1) // self.passes_per_epoch)

    @property
    def epoch(self) -> int:
        """e, the 1-based epoch the schedules count."""
        return self.current_epoch // self.passes_per_epoch + 1

    def compile_networks(self, backend: str) -> None:
        """Let student and teacher be compiled when they next compute; names in checkpoints stay as they are."""
        for network in filter(None, (self.student, self.teacher)):
            network.compile(backend=backend, dynamic=False)  # views have few sizes, and each is worth its own code

    def networks(self) -> dict[str, nn.Module]:
        """Backbones by name, the one the paper deploys first."""
        found = {"student": self.student.backbone}
        if self.teacher is not None:
            found["teacher"] = self.teacher.backbone
        return {self.evaluated: found.pop(self.evaluated), **found}

    def get_extra_state(self) -> dict[str, int]:
        """Counters, which schedules and followers depend on."""
        return {"student_steps": self.student_steps}

    def set_extra_state(self, state: Mapping[str, int]) -> None:
        """Restore the counters."""
        self.student_steps = state["student_steps"]

    def require_views(self, *, full_size: int, smaller: bool) -> None:
        """UserError unless the recipe makes so many full-size views, and smaller ones only where they are allowed."""
        require_views(type(self).__name__, self.views.sizes, full_size=full_size, smaller=smaller)

    def require_batch(self, images: int) -> None:
        """UserError unless BatchNorm sees two images or more where ``images`` of every view pass by themselves."""
        apart = self.predictor is not None and bool(batch_norms(self.predictor))  # one view after the other
        require_batch_statistics(
            self.recipe.batch_size, images, self.views.sizes, concat_views=self.concat_views and not apart
        )


class EMATeacher(Method):
    """A method whose teacher is a moving average of the student: ξ ← ηξ + (1 − η)θ after every real step."""

    def __init__(self, parts: Parts, *, momentum: float, momentum_schedule: str) -> None:
        super().__init__(parts)
        self.momentum = momentum
        self.momentum_schedule = momentum_schedule
        self.teacher: Network = teachers.twin(parts.teacher_init or self.student)

    @property
    def progress(self) -> float:
        """Share of all optimiser steps already taken, in [0, 1]."""
        return self.student_steps / max(1.0, float(self.trainer.estimated_stepping_batches))

    @property
    def eta(self) -> float:
        """η of the step just taken, for all that moves with the teacher."""
        if self.momentum_schedule == "cosine":  # Grill et al. 2020, section 3.1
            return cosine(self.momentum, 1.0, self.progress)
        return self.momentum

    def after_optimizer_step(self) -> None:
        teachers.step_towards(self.teacher, self.student, 1 - self.eta)
