"""Losses of the methods: pure functions in float32 that never communicate.

Letters: n images of this rank, N images of the global batch, V views, G of them full-size, D embedding width,
T temperature.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

Arguments = ParamSpec("Arguments")


def _in_full_precision(loss: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Keep autocast from computing parts of ``loss`` in half precision."""

    @functools.wraps(loss)
    def exact(*arguments: Arguments.args, **options: Arguments.kwargs) -> Tensor:
        views = (z for z in (*arguments, *options.values()) if isinstance(z, (Tensor, list, tuple)))
        first: Any = next(views)
        tensor = first if isinstance(first, Tensor) else first[0]
        with torch.autocast(tensor.device.type, enabled=False):
            return loss(*arguments, **options)

    return exact


@_in_full_precision
def nt_xent(
    anchors: Sequence[Tensor],
    candidates: Sequence[Tensor],
    *,
    first: int,
    temperature: float,
    normalize: bool,
) -> Tensor:
    """Normalised temperature-scaled cross-entropy over the other images (Chen et al. 2020, SimCLR, eq. 1).

    anchors: V views of this rank's images, ``[n, D]`` each, standing at rows ``first`` to ``first + n`` of
    candidates: the G full-size views of the global batch, ``[N, D]`` each; the first G anchors are views of the same
    pictures. Every anchor is attracted by each other full-size view of its image in turn, against all candidates of
    other images: G(N − 1) negatives. Mean over these pairs and rows. For V = G = 2, the paper's case,
    ln(2N − 1) when all embeddings are equal, 0 for N = 1. With the student's embeddings on both sides it is SimCLR's
    loss, with the teacher's as candidates CLBO's. Without ``normalize`` similarities are inner products, no cosines.
    """
    n, size, count = len(anchors[0]), len(candidates[0]), len(candidates)
    logits = _similarities(anchors, candidates, normalize=normalize) / temperature  # [V, n, GN]
    losses = []
    for positive, (hidden, wanted) in enumerate(_own_candidates(first, n, size, count, logits.device)):
        others = _without(logits, positive)
        masked = others.scatter(2, hidden.expand(len(others), -1, -1), float("-inf"))
        losses.append(F.cross_entropy(masked.flatten(0, 1), wanted.repeat(len(others))))
    return torch.stack(losses).mean()


@_in_full_precision
def nt_logistic(
    anchors: Sequence[Tensor],
    candidates: Sequence[Tensor],
    *,
    first: int,
    temperature: float,
    normalize: bool,
    semi_hard: bool,
) -> Tensor:
    """Logistic loss of pairs, −ln σ(s⁺/T) − ln σ(−s⁻/T) (Chen et al. 2020, SimCLR, table 2).

    Arguments as of ``nt_xent``, N ≥ 2. s⁺ is an anchor's similarity to another full-size view of its image, s⁻ to one
    of the G(N − 1) candidates of other images, over which the mean is taken; with ``semi_hard`` the only s⁻ is the
    largest below s⁺, and there is none where no s⁻ is below. 2 ln 2 when all embeddings are at right angles, ln 2 with
    ``semi_hard``.
    """

    def term(positive: Tensor, negative: Tensor) -> Tensor:
        return F.softplus(-positive / temperature) + F.softplus(negative / temperature)

    return _over_triplets(term, anchors, candidates, first=first, normalize=normalize, semi_hard=semi_hard)


@_in_full_precision
def margin_triplet(
    anchors: Sequence[Tensor],
    candidates: Sequence[Tensor],
    *,
    first: int,
    margin: float,
    normalize: bool,
    semi_hard: bool,
) -> Tensor:
    """Hinge of triplets, max(s⁻ − s⁺ + margin, 0) (Schroff et al. 2015, FaceNet; Chen et al. 2020, SimCLR, table 2).

    Arguments as of ``nt_logistic``. The margin when all embeddings are equal, 0 with ``semi_hard``.
    """

    def term(positive: Tensor, negative: Tensor) -> Tensor:
        return F.relu(negative - positive + margin)

    return _over_triplets(term, anchors, candidates, first=first, normalize=normalize, semi_hard=semi_hard)


def _over_triplets(
    term: Callable[[Tensor, Tensor], Tensor],
    anchors: Sequence[Tensor],
    candidates: Sequence[Tensor],
    *,
    first: int,
    normalize: bool,
    semi_hard: bool,
) -> Tensor:
    """Mean of ``term`` of s⁺ and s⁻ over pairs, rows and negatives; where there is no semi-hard s⁻ it is −∞."""
    n, size, count = len(anchors[0]), len(candidates[0]), len(candidates)
    similarities = _similarities(anchors, candidates, normalize=normalize)  # [V, n, GN]
    foreign = _foreign_candidates(first, n, size, count, similarities.device)  # [n, G(N − 1)]
    losses = []
    for view, (_, wanted) in enumerate(_own_candidates(first, n, size, count, similarities.device)):
        others = _without(similarities, view)
        positive = others.gather(2, wanted[:, None].expand(len(others), -1, -1))  # [V − 1, n, 1]
        negative = others.gather(2, foreign.expand(len(others), -1, -1))  # [V − 1, n, G(N − 1)]
        if semi_hard:
            negative = negative.masked_fill(negative >= positive, float("-inf")).amax(2, keepdim=True)
        losses.append(term(positive, negative).mean())
    return torch.stack(losses).mean()


def _similarities(anchors: Sequence[Tensor], candidates: Sequence[Tensor], *, normalize: bool) -> Tensor:
    """Of every anchor to every candidate, ``[V, n, GN]``: cosines, or inner products."""
    query, key = full_precision(torch.cat(list(anchors))), full_precision(torch.cat(list(candidates)))
    if normalize:
        query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)  # [Vn, D], [GN, D]
    return (query @ key.T).view(len(anchors), len(anchors[0]), len(key))


def _without(views: Tensor, view: int) -> Tensor:
    return torch.cat([views[:view], views[view + 1 :]])  # not by a list of views, which would be copied


@functools.lru_cache(maxsize=4)
def _own_candidates(first: int, n: int, size: int, count: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Where an image's own candidates stand, for each of G views: in the others ``[n, G − 1]``, in this one ``[n]``."""
    rows = torch.arange(first, first + n, device=device)[:, None]
    own = rows + size * torch.arange(count, device=device)  # [n, G]
    return [(torch.cat([own[:, :view], own[:, view + 1 :]], dim=1), own[:, view]) for view in range(count)]


@functools.lru_cache(maxsize=4)
def _foreign_candidates(first: int, n: int, size: int, count: int, device: torch.device) -> Tensor:
    """Where the candidates of other images stand, ``[n, G(N − 1)]``."""
    rows = torch.arange(first, first + n, device=device)[:, None]
    own = torch.arange(count * size, device=device) % size == rows  # [n, GN]
    return own.sort(dim=1, stable=True).indices[:, : count * (size - 1)]


@_in_full_precision
def info_nce(query: Tensor, key: Tensor, *, first: int, temperature: float) -> Tensor:
    """Cross-entropy of each query's own key among all keys (van den Oord et al. 2018).

    query: ``[n, D]``, standing at rows ``first`` to ``first + n`` of key: ``[N, D]``. N − 1 negatives each; ln N when
    all embeddings are equal.
    """
    logits = (
        F.normalize(full_precision(query), dim=1) @ F.normalize(full_precision(key), dim=1).T / temperature
    )  # [n, N]
    return F.cross_entropy(logits, torch.arange(first, first + len(query), device=query.device))


@_in_full_precision
def queue_nce(query: Tensor, key: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy of each query's own key against the queue (He et al. 2020, MoCo, eq. 1).

    query, key: ``[n, D]``; queue: unit rows ``[M, D]``. M negatives each; ln(1 + M) when all are equal.
    """
    query, key = F.normalize(full_precision(query), dim=1), F.normalize(full_precision(key), dim=1)
    positive = (query * key).sum(1, keepdim=True)  # [n, 1]
    logits = torch.cat([positive, query @ queue.to(query).T], dim=1) / temperature  # [n, 1 + M]
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


@_in_full_precision
def normalized_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of unit vectors, 2 − 2 cos, in [0, 4] (Grill et al. 2020, BYOL, eq. 2). Both ``[n, D]``."""
    return 2 - 2 * F.cosine_similarity(full_precision(prediction), full_precision(target), dim=1).mean()


@_in_full_precision
def barlow_twins(z1: Tensor, z2: Tensor, *, off_diagonal: float) -> Tensor:
    """Distance of the cross-correlation of two views from the identity (Zbontar et al. 2021, Barlow Twins, eqs. 1, 2).

    z1, z2: the global batch, ``[N, D]``. Σᵢ (1 − Cᵢᵢ)² + off_diagonal · Σ_{i ≠ j} Cᵢⱼ², with C = Aᵀ B / N of the
    columns standardised over the batch (biased variance + 1e-5, as BatchNorm does). D for constant embeddings.
    """
    a, b = _standardized(full_precision(z1)), _standardized(full_precision(z2))  # columns of mean 0, variance 1
    c = a.T @ b / len(a)  # [D, D]
    diagonal = c.diagonal()
    on, off = (1 - diagonal).square().sum(), c.square().sum() - diagonal.square().sum()
    return on + off_diagonal * off


def _standardized(z: Tensor) -> Tensor:
    centred = z - z.mean(0)
    return centred / (centred.square().mean(0) + 1e-5).sqrt()


@_in_full_precision
def vicreg(z1: Tensor, z2: Tensor, *, invariance: float, variance: float, covariance: float) -> Tensor:
    """Variance-invariance-covariance regularisation (Bardes et al. 2022, VICReg, eqs. 1–6).

    z1, z2: the global batch, ``[N, D]``, N ≥ 2. The mean square distance of the views; the hinge of every column's
    standard deviation at 1, averaged over columns and views; the squared covariances off the diagonal, divided by D
    and summed over views. Variances and covariances are unbiased. ``0.99 · variance`` for constant embeddings.
    """
    z1, z2 = full_precision(z1), full_precision(z2)
    rows, width = z1.shape
    spread = z1.new_zeros(())
    correlated = z1.new_zeros(())
    for z in (z1, z2):
        centred = z - z.mean(0)
        # Inside the root 1e-4 keeps the gradient finite where a column is constant.
        deviation = (centred.square().sum(0) / (rows - 1) + 1e-4).sqrt()  # [D]
        spread = spread + F.relu(1 - deviation).mean() / 2
        c = centred.T @ centred / (rows - 1)  # [D, D]
        correlated = correlated + (c.square().sum() - c.diagonal().square().sum()) / width
    return invariance * F.mse_loss(z1, z2) + variance * spread + covariance * correlated


def over_pairs(loss: Callable[[Tensor, Tensor], Tensor], student: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Mean of ``loss(student[v], target[i])`` over all full-size views i and all views v ≠ i of the same images."""
    pairs = [(v, i) for i in range(len(target)) for v in range(len(student)) if v != i]
    return torch.stack([loss(student[v], target[i]) for v, i in pairs]).mean()


def full_precision(x: Tensor) -> Tensor:
    """At least float32: exponentials and normalised rows lose too much in half precision."""
    return x if x.dtype == torch.float64 else x.float()
