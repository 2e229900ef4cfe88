"""BatchNorm over the images of all ranks, so that two devices train what one would.

Letters: n rows of this rank, C channels; sums run over rows, pixels and ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_bench.distributed import gather, world_size


class SyncBatchNorm(_BatchNorm):
    """BatchNorm1d or 2d (Ioffe & Szegedy 2015) with the statistics of the global batch, on any device.

    The state dict is that of nn.BatchNorm. torch's own nn.SyncBatchNorm does the same faster, on CUDA only. Ranks may
    hold different numbers of rows.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batches are [n, C, ...], not {list(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """``[n, C, ...]`` → the same shape and dtype, per channel with mean 0 and variance 1 over the global batch."""
        if not self.training or world_size() == 1:
            output: Tensor = super().forward(input)
            return output
        self._check_input_dim(input)
        x = input if input.dtype == torch.float64 else input.float()
        column = [1, -1] + [1] * (x.ndim - 2)
        with torch.autocast(x.device.type, enabled=False):
            mean, variance, total = self._statistics(x)
            self._follow(mean.detach(), variance.detach(), total.detach())
            scale = (variance + self.eps).rsqrt()
            if self.weight is not None:
                scale = scale * self.weight
            y = (x - mean.view(column)) * scale.view(column)
            if self.bias is not None:
                y = y + self.bias.view(column)
        return y.to(input.dtype)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean ``[C]``, variance ``[C]`` and number of values per channel over all ranks, in one exchange."""
        others, channels = [dim for dim in range(x.ndim) if dim != 1], x.shape[1]
        count = x.new_tensor([x.numel() / channels])
        if len(x):
            variance, mean = torch.var_mean(x, others, correction=0)
        else:  # it still takes part
            variance = mean = x.sum(others)
        of_ranks = gather(torch.cat([mean, variance, count])[None])  # [ranks, 2C + 1]
        share = of_ranks[:, -1:] / of_ranks[:, -1].sum()
        means, variances = of_ranks[:, :channels], of_ranks[:, channels:-1]
        mean = (share * means).sum(0)
        # Not E[x²] − E[x]², which loses its digits where the mean is large (Chan et al. 1979).
        variance = (share * (variances + (means - mean).square())).sum(0)
        return mean, variance, of_ranks[:, -1].sum()

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        """Move the running statistics as nn.BatchNorm does: by momentum, or as the plain average without one."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_((variance * total / (total - 1)).to(self.running_var.dtype), rate)


def synchronize(module: nn.Module, *, cuda: bool) -> None:
    """Let every BatchNorm inside ``module`` take its statistics over all ranks; parameters and buffers stay the same.

    cuda: whether it will run there, where torch's own layer takes their place.
    """
    for name, child in module.named_children():
        if not isinstance(child, _BatchNorm):
            synchronize(child, cuda=cuda)
            continue
        kind = nn.SyncBatchNorm if cuda else SyncBatchNorm
        layer = kind(
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
