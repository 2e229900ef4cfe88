"""BatchNorm over the images of all ranks, so that two devices train what one would.

Letters: n rows of this rank, C channels, N values of a channel over rows, pixels and ranks. With invstd =
1/√(variance + eps), x̂ = (x − mean) · invstd and y = weight · x̂ + bias, a gradient g of y becomes

    weight · invstd · (g − Σg / N − x̂ Σ(g x̂) / N)

where sums run over all N, since every value moves the statistics (Ioffe & Szegedy 2015, section 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_bench.distributed import gather, total_over_ranks, world_size


class SyncBatchNorm(_BatchNorm):
    """BatchNorm1d or 2d with the statistics of the global batch, on any device.

    The state dict is that of nn.BatchNorm. Ranks exchange 2C + 1 numbers in the forward and 2C in the backward pass;
    nothing is read back from the device, for which torch's own layer waits three times. Ranks may hold different
    numbers of rows; on CUDA each holds one at least. ``shared = False``: where all ranks see the same rows.
    """

    shared = True

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batches are [n, C, ...], not {list(input.shape)}")

    # Captured, it would be a graph within a graph, which some versions of torch refuse to compile under
    # DistributedDataParallel; and torch's kernels of CUDA cannot be captured.
    @torch.compiler.disable
    def forward(self, input: Tensor) -> Tensor:
        """``[n, C, ...]`` → the same shape and dtype, per channel with mean 0 and variance 1 over the global batch."""
        if not self.training or not self.shared or world_size() == 1:
            output: Tensor = super().forward(input)
            return output
        self._check_input_dim(input)
        rate = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if rate is None:  # the plain average
                rate = 1 / float(self.num_batches_tracked)
        running = (self.running_mean, self.running_var)
        with torch.autocast(input.device.type, enabled=False):
            normalised: Tensor = _Normalise.apply(input, self.weight, self.bias, running, rate or 0.0, self.eps)
        return normalised


class _Normalise(torch.autograd.Function):
    """The layer's arithmetic; keeps the input and 2C + ranks numbers for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running: tuple[Tensor | None, Tensor | None],
        rate: float,
        eps: float,
    ) -> Tensor:
        kernels = _kernels(input)
        input = input.contiguous(memory_format=_format(input))
        mean, invstd, counts = kernels.statistics(input, *running, rate, eps)
        ctx.save_for_backward(input, weight, mean, invstd, counts)
        return kernels.normalise(input, weight, bias, mean, invstd, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, invstd, counts = ctx.saved_tensors
        kernels = _kernels(input)
        gradient = gradient.contiguous(memory_format=_format(input))
        sums = kernels.sums(gradient, input, mean, invstd)
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = kernels.of_input(gradient, input, weight, mean, invstd, total_over_ranks(sums), counts)
        # DistributedDataParallel averages over ranks what parameters get from the rows of each.
        of_weight = sums[1] * invstd if ctx.needs_input_grad[1] else None
        of_bias = sums[0] if ctx.needs_input_grad[2] else None
        return of_input, of_weight, of_bias, None, None, None


def _format(x: Tensor) -> torch.memory_format:
    """That of ``x``, where it has one."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _kernels(x: Tensor) -> type[_Plain] | type[_Cuda]:
    return _Cuda if x.is_cuda else _Plain


class _Plain:
    """In operations that every device has; float32 within, float64 where the input is."""

    @staticmethod
    def statistics(
        x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, rate: float, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean ``[C]`` and invstd ``[C]`` over all ranks, in one exchange, and values per channel of each ``[ranks]``.

        Moves the running statistics as nn.BatchNorm does, by ``rate``.
        """
        x, others, channels = _wide(x), _others(x), x.shape[1]
        if len(x):
            variance, mean = torch.var_mean(x, others, correction=0)
        else:  # it still takes part
            variance = mean = x.sum(others)
        of_ranks = gather(torch.cat([mean, variance, mean.new_full((1,), x.numel() / channels)])[None])
        counts = of_ranks[:, -1]  # of_ranks: [ranks, 2C + 1]
        total = counts.sum()
        share = of_ranks[:, -1:] / total
        means, variances = of_ranks[:, :channels], of_ranks[:, channels:-1]
        mean = (share * means).sum(0)
        # Not E[x²] − E[x]², which loses its digits where the mean is large (Chan et al. 1979).
        variance = (share * (variances + (means - mean).square())).sum(0)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), rate)
            running_var.lerp_((variance * total / (total - 1)).to(running_var.dtype), rate)
        return mean, (variance + eps).rsqrt(), counts

    @staticmethod
    def normalise(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
    ) -> Tensor:
        """y, in the dtype of ``x``."""
        scale = invstd if weight is None else invstd * weight
        y = (_wide(x) - _column(mean, x)) * _column(scale, x)
        if bias is not None:
            y = y + _column(bias, x)
        return y.to(x.dtype)

    @staticmethod
    def sums(gradient: Tensor, x: Tensor, mean: Tensor, invstd: Tensor) -> Tensor:
        """Σ g and Σ g (x − mean) over this rank's rows and pixels, ``[2, C]``."""
        g, others = _wide(gradient), _others(x)
        return torch.stack([g.sum(others), (g * (_wide(x) - _column(mean, x))).sum(others)])

    @staticmethod
    def of_input(
        gradient: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, invstd: Tensor, sums: Tensor, counts: Tensor
    ) -> Tensor:
        """The gradient of ``x``, in its dtype, from the ``sums`` over all ranks."""
        of_mean, of_scale = sums / counts.sum()
        centred = (_wide(x) - _column(mean, x)) * _column(invstd.square() * of_scale, x)
        scale = invstd if weight is None else invstd * weight
        return ((_wide(gradient) - _column(of_mean, x) - centred) * _column(scale, x)).to(x.dtype)


class _Cuda:
    """The same by the kernels of torch's own layer: each reads its tensors once, and none of them waits."""

    @staticmethod
    def statistics(
        x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, rate: float, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        mean, invstd = torch.batch_norm_stats(x, eps)
        of_ranks = gather(torch.cat([mean, invstd, mean.new_full((1,), x.numel() // channels)])[None])
        means, invstds, counts = of_ranks[:, :channels], of_ranks[:, channels:-1], of_ranks[:, -1].contiguous()
        mean, invstd = torch.batch_norm_gather_stats_with_counts(
            x, means.contiguous(), invstds.contiguous(), running_mean, running_var, rate, eps, counts
        )
        return mean, invstd, counts

    @staticmethod
    def normalise(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
    ) -> Tensor:
        y: Tensor = torch.batch_norm_elemt(x, weight, bias, mean, invstd, eps)
        return y

    @staticmethod
    def sums(gradient: Tensor, x: Tensor, mean: Tensor, invstd: Tensor) -> Tensor:
        found = torch.batch_norm_backward_reduce(gradient, x, mean, invstd, None, True, False, False)
        return torch.stack(found[:2])

    @staticmethod
    def of_input(
        gradient: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, invstd: Tensor, sums: Tensor, counts: Tensor
    ) -> Tensor:
        of_input: Tensor = torch.batch_norm_backward_elemt(
            gradient, x, mean, invstd, weight, sums[0], sums[1], counts.to(torch.int32)
        )
        return of_input


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _others(x: Tensor) -> list[int]:
    return [dim for dim in range(x.ndim) if dim != 1]


def _column(of_channels: Tensor, x: Tensor) -> Tensor:
    return of_channels.view([1, -1] + [1] * (x.ndim - 2))


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm inside ``module``."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def synchronize(module: nn.Module) -> None:
    """Let every BatchNorm inside ``module`` take its statistics over all ranks; tensors stay as they are."""
    for name, child in module.named_children():
        if not isinstance(child, _BatchNorm):
            synchronize(child)
            continue
        layer = SyncBatchNorm(
            child.num_features,
            eps=child.eps,
            momentum=child.momentum,
            affine=child.affine,
            track_running_stats=child.track_running_stats,
        )
        # The very same tensors, so that an optimiser or a twin that knows them knows the new layer's.
        layer._parameters.update(child._parameters)
        layer._buffers.update(child._buffers)
        layer.train(child.training)
        setattr(module, name, layer)
