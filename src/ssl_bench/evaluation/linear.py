"""A linear probe: softmax regression on frozen, standardised features, several learning rates trained at once.

Letters: N images, F feature width, C classes, L learning rates, B images of a step.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.precision import full_float32


@dataclass(frozen=True, slots=True)
class LinearClassifier:
    """Scores (x − mean) / scale · weight + bias."""

    mean: Tensor  # [F]
    scale: Tensor  # [F]
    weight: Tensor  # [F, C]
    bias: Tensor  # [C]

    def scores(self, x: Tensor) -> Tensor:
        """Of every class, ``[N, C]``, for features ``[N, F]`` as the network gave them."""
        with full_float32(x.device):
            return (x.float() - self.mean) / self.scale @ self.weight + self.bias

    def predict(self, x: Tensor) -> Tensor:
        """Classes ``[N]`` of features ``[N, F]``; the lowest among equal scores."""
        return self.scores(x).argmax(1)


@dataclass(frozen=True, slots=True)
class FittedProbe:
    """A classifier and how it was chosen."""

    classifier: LinearClassifier
    learning_rate: float
    validation_percent: float  # at that learning rate, trained on train alone
    images: int  # that the classifier was trained on

    def predict(self, x: Tensor) -> Tensor:
        """Classes ``[N]`` of features ``[N, F]``."""
        return self.classifier.predict(x)


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Cross-entropy by SGD with momentum, the learning rate falling to 0 along a cosine; weights start at 0.

    An epoch is cut into as few batches of at most ``batch_size`` images as can be; their sizes differ by one at most.
    """

    learning_rates: tuple[float, ...]
    epochs: int
    batch_size: int
    momentum: float
    weight_decay: float
    seed: int  # of the order of images; the same seed gives the same classifier

    def fit(self, train: Features, validation: Features, classes: int) -> FittedProbe:
        """Train with every learning rate and keep the best on validation, the first among equals.

        Raises UserError if either set is empty, ValueError for labels outside 0 … classes − 1.
        """
        for name, features in (("train", train), ("validation", validation)):
            if not len(features):
                raise UserError(f"The linear probe needs labelled {name} images and has none: choose a larger split.")
            if not 0 <= int(features.labels.min()) <= int(features.labels.max()) < classes:
                raise ValueError(f"the linear probe wants {name} labels in 0 … {classes - 1}")
        classifiers = self._train(train, self.learning_rates, classes)
        right = [(classifier.predict(validation.x) == validation.labels).sum() for classifier in classifiers]
        best = int(torch.stack(right).argmax())
        percent = 100 * int(right[best]) / len(validation)
        return FittedProbe(classifiers[best], self.learning_rates[best], percent, len(train))

    def refit(self, fitted: FittedProbe, train: Features, validation: Features, classes: int) -> FittedProbe:
        """Train once more, with the learning rate of ``fitted``, on both that it was fitted and chosen on."""
        everything = train.joined(validation)
        (classifier,) = self._train(everything, (fitted.learning_rate,), classes)
        return replace(fitted, classifier=classifier, images=len(everything))

    @torch.no_grad()
    def _train(self, features: Features, rates: tuple[float, ...], classes: int) -> list[LinearClassifier]:
        """One classifier per learning rate. All see the same batches, so one matrix product serves them all."""
        deviation, mean = torch.std_mean(features.x, dim=0, correction=0)  # [F]
        low, high = torch.aminmax(features.x, dim=0)
        constant = deviation <= 1e-6 * torch.maximum(high, -low)  # what rounding alone leaves
        scale = deviation.masked_fill(constant, 1)  # what is constant then stays near 0
        x = features.x.new_ones(len(features), features.x.shape[1] + 1)  # [N, F + 1], the biases' ones last
        torch.sub(features.x, mean, out=x[:, :-1]).div_(scale)
        rate = x.new_tensor(rates).repeat_interleave(classes)  # [L·C]
        parameters = x.new_zeros(x.shape[1], len(rate))  # [F + 1, L·C], the biases in the last row
        velocity = torch.zeros_like(parameters)
        generator = torch.Generator().manual_seed(self.seed)
        # Equal batches: under a full step, what one odd image is left over with would undo what all others taught.
        batches = math.ceil(len(x) / self.batch_size)
        steps, step = self.epochs * batches, 0
        with full_float32(x.device):
            for _ in range(self.epochs):
                order = torch.randperm(len(x), generator=generator).to(x.device)
                for rows in order.tensor_split(batches):
                    images, labels = x[rows], features.labels[rows]
                    # The gradient of the cross-entropy by the scores is softmax − one-hot.
                    error = (images @ parameters).view(len(images), len(rates), classes).softmax(2)  # [B, L, C]
                    error[torch.arange(len(images), device=x.device), :, labels] -= 1
                    gradient = images.T @ error.flatten(1).div_(len(images))  # [F + 1, L·C]
                    velocity.mul_(self.momentum).add_(gradient).add_(parameters, alpha=self.weight_decay)
                    parameters.addcmul_(velocity, rate, value=-0.5 * (1 + math.cos(math.pi * step / steps)))
                    step += 1
        return [LinearClassifier(mean, scale, part[:-1], part[-1]) for part in torch.split(parameters, classes, dim=1)]
