"""Projectors and predictors: multilayer perceptrons on features."""

from collections.abc import Mapping

from torch import Tensor, nn


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


def mlp_of(state: Mapping[str, Tensor]) -> nn.Sequential:
    """The perceptron whose state dict ``state`` is, in its order; ValueError or RuntimeError where it is no `mlp`."""
    weights = [tensor for tensor in state.values() if tensor.ndim == 2]  # [outputs, inputs] of the linear layers
    if not weights:
        raise ValueError("it has no linear layers")
    (hidden, inputs), outputs = weights[0].shape, len(weights[-1])
    output_norm = not list(state)[-1].endswith("bias")  # where the last linear layer has no bias
    network = mlp(inputs, hidden, outputs, len(weights), output_norm=output_norm)
    network.load_state_dict(state)
    return network
