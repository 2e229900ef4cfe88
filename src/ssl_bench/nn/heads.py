"""Projectors and predictors: multilayer perceptrons on features."""

from torch import nn


def mlp(inputs: int, hidden: int, outputs: int, layers: int, *, output_norm: bool) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them and a plain last one.

    ``layers`` counts the linear layers; 0 gives the identity, whose output has ``inputs`` columns. ``output_norm``
    ends in a BatchNorm without scale and shift, as SimSiam's projector does (Chen & He 2021).
    """
    modules: list[nn.Module] = []
    for layer in range(layers):
        last = layer == layers - 1
        width = outputs if last else hidden
        # BatchNorm's own shift makes a bias before it useless.
        modules.append(nn.Linear(inputs, width, bias=last and not output_norm))
        if not last:
            modules += [nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        inputs = width
    if output_norm:
        modules.append(nn.BatchNorm1d(inputs, affine=False))
    return nn.Sequential(*modules)
