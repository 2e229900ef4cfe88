"""Supervised training under the same backbone, views and budget: the upper reference of every table.

    L = −log softmax(W h)_y, averaged over views

The projector is the classifier: one linear layer from the feature to the classes. Images without a label are
skipped.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ssl_bench.distributed import mean_over_ranks, world_size
from ssl_bench.methods.base import Loss, Method, Step


class Supervised(Method):
    """Cross-entropy of every view against the image's label."""

    def loss(self, step: Step) -> Loss:
        logits = torch.cat(step.predictions)  # [Vn, classes]
        labels = step.batch.labels.repeat(len(step.predictions))
        # The sum over labelled rows, so that a batch without a label gives 0 and not 0/0; divided alike on all ranks.
        total = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        count = mean_over_ranks((labels >= 0).sum().to(total))
        return total / count.clamp(min=1 / world_size()), {}
