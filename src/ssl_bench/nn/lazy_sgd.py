"""Rows of a large matrix under momentum SGD, computed only when they are needed, and then exactly.

Torch's SGD moves every row w with momentum u at every step, even one whose loss has no gradient there:

    u ← m u + λ w,  w ← w − η u        or        (w, u) ← M (w, u),  M = [[1 − ηλ, −ηm], [λ, m]]

with learning rate η, weight decay λ and momentum m. So a row may stay where it is and, when it is next needed, take
the steps it has missed as one product of such matrices.

Letters: R rows, A of them active, D width, T steps of the run, b rows that are behind.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class StepProducts:
    """Products of the matrices M over any interval of steps, while the learning rate changes from step to step.

    Level j of a binary tree holds the products over blocks of 2ʲ consecutive steps, T matrices on the lowest level and
    2T in all. An interval is put together from at most two blocks of every level. Nothing is inverted: det M = m, and
    the determinant of a long product is 0 in floating point.

    Args:
        rates: learning rate of each step of the run.
    """

    def __init__(self, rates: Sequence[float], *, momentum: float, weight_decay: float, device: torch.device) -> None:
        rate = torch.tensor(rates, dtype=torch.float64, device=device)
        steps = torch.empty(len(rate), 2, 2, dtype=torch.float64, device=device)
        steps[:, 0, 0] = 1 - rate * weight_decay
        steps[:, 0, 1] = -rate * momentum
        steps[:, 1, 0] = weight_decay
        steps[:, 1, 1] = momentum
        self.steps = len(rate)
        self.levels = [steps]
        while len(self.levels[-1]) > 1:
            below = self.levels[-1]
            pairs = len(below) // 2  # a last block without a partner is in no complete block above
            self.levels.append(below[1 : 2 * pairs : 2] @ below[: 2 * pairs : 2])  # later steps stand left

    def between(self, first: Tensor, end: int) -> Tensor:
        """The product over the steps from ``first`` (int64 ``[b]``) up to, not including, ``end``: ``[b, 2, 2]``."""
        if end > self.steps:
            raise ValueError(f"step {end} is beyond the {self.steps} steps whose learning rates are known")
        product = torch.eye(2, dtype=torch.float64, device=first.device).expand(len(first), 2, 2)
        # The longest interval; an accelerator is not asked for it, since that would be to wait for it.
        at, lag = first, end - int(first.min()) if first.device.type == "cpu" and len(first) else end
        # Up: from every start to where ever larger blocks begin. Then down: ever smaller blocks, as long as they fit.
        up = [(level, True) for level in range(lag.bit_length())]
        for level, climbing in [*up, *((level, False) for level, _ in reversed(up))]:
            taken = at + (1 << level) <= end
            if climbing:
                taken &= (at >> level) % 2 == 1
            block = (at >> level).clamp(max=len(self.levels[level]) - 1)
            product = torch.where(taken[:, None, None], self.levels[level][block] @ product, product)
            at = at + (taken.long() << level)
        return product


class LazySGD(nn.Module):
    """A matrix of R rows that torch.optim.SGD trains, as buffers, at a cost that does not depend on R.

    ``catch_up`` brings rows to a step, ``leaf`` hands them out to a loss, and ``update`` takes the step with their
    gradient. Equal to ``torch.optim.SGD(momentum, weight_decay)`` over the whole matrix.

    Args:
        rows: initial values ``[R, D]``.
    """

    weight: Tensor  # [R, D], each row as it was after `taken` steps
    velocity: Tensor  # [R, D], what torch calls the momentum buffer
    taken: Tensor  # int64 [R], steps that are in the row

    def __init__(self, rows: Tensor, *, momentum: float, weight_decay: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.register_buffer("weight", rows)
        self.register_buffer("velocity", torch.zeros_like(rows))
        self.register_buffer("taken", torch.zeros(len(rows), dtype=torch.int64))
        self.rates: Sequence[float] = ()
        self._products: StepProducts | None = None

    def follow(self, rates: Sequence[float]) -> None:
        """State the learning rate of every step of the run."""
        self.rates = rates
        self._products = None

    def leaf(self, active: Tensor) -> Tensor:
        """The rows ``active`` (int64 ``[A]``, distinct, caught up) as a leaf that gathers gradient, ``[A, D]``."""
        return self.weight.index_select(0, active).requires_grad_()

    @torch.no_grad()
    def catch_up(self, rows: Tensor, step: int) -> None:
        """Let ``rows`` (int64 ``[b]``) take the steps before ``step`` that they missed, without a data gradient."""
        if self._products is None:
            # Kept apart from the buffers: it stays in float64 whatever the module's precision.
            self._products = StepProducts(
                self.rates, momentum=self.momentum, weight_decay=self.weight_decay, device=self.weight.device
            )
        taken = self.taken.index_select(0, rows)
        product = self._products.between(taken, step).to(self.weight.dtype)  # [b, 2, 2], 1 for rows that are not behind
        pair = torch.stack([self.weight.index_select(0, rows), self.velocity.index_select(0, rows)], dim=1)  # [b, 2, D]
        weight, velocity = (product @ pair).unbind(1)
        self._keep(rows, weight, velocity, step)

    @torch.no_grad()
    def update(self, active: Tensor, gradient: Tensor, step: int) -> None:
        """Step number ``step`` of the rows ``active`` (int64 ``[A]``, distinct, caught up) with gradient ``[A, D]``."""
        weight = self.weight.index_select(0, active)
        velocity = self.velocity.index_select(0, active)
        velocity.mul_(self.momentum).add_(gradient.add(weight, alpha=self.weight_decay))
        weight.add_(velocity, alpha=-self.rates[step])
        self._keep(active, weight, velocity, step + 1)

    def _keep(self, rows: Tensor, weight: Tensor, velocity: Tensor, taken: int) -> None:
        self.weight.index_copy_(0, rows, weight)
        self.velocity.index_copy_(0, rows, velocity)
        self.taken.index_fill_(0, rows, taken)
