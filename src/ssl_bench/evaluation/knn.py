"""Exact k-nearest neighbours by cosine similarity, and the vote among them.

Scanning in bfloat16 is several times faster than in float32 but rounds, so the scan only rules out: a bank row is
dropped when the rounding error, bounded by Cauchy–Schwarz, cannot make it one of the k nearest. What is left, a few
rows more than k, is compared in float32, pair by pair. The answer is therefore that of a full float32 search, ties
go to the lowest bank row, and it does not depend on how the work was cut into blocks. A bank that is mostly copies
is sorted instead; there, and only there, similarities less than float32 rounding apart may change places.

Letters: M bank rows, Q queries, F feature width, k neighbours, T temperature; q rows of a block of queries.
"""

import warnings
from collections.abc import Sequence
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_bench.errors import UserError
from ssl_bench.evaluation.precision import full_float32

# A bank row costs a block at most a similarity (4 bytes), a mask (1), and a value and an index to sort (12).
_BYTES_PER_SIMILARITY = 17
# More queries at once do not make the matrix product faster, but their similarities fall out of the cache.
_MOST_ROWS = 256
# Comparing one pair alone takes as long as this many pairs within a matrix product.
_PAIR_COST = 32


def predict(
    bank: Tensor, labels: Tensor, queries: Tensor, *, k: int, temperature: float, classes: int, budget: int
) -> Tensor:
    """Classes ``[Q]`` by the vote of the k nearest bank rows, each weighing exp(similarity / T).

    Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination", section 3.4; k = 1 is
    the nearest row's label. bank ``[M, F]`` with labels ``[M]`` in 0 … classes − 1, queries ``[Q, F]``. Equal votes
    go to the lowest class. Raises what :func:`neighbours` raises, and ValueError for labels out of range.
    """
    return predict_by_k(bank, labels, queries, ks=(k,), temperature=temperature, classes=classes, budget=budget)[k]


def predict_by_k(
    bank: Tensor, labels: Tensor, queries: Tensor, *, ks: Sequence[int], temperature: float, classes: int, budget: int
) -> dict[int, Tensor]:
    """What :func:`predict` gives for each k of ``ks``, by one search."""
    if len(labels) != len(bank) or (len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes):
        raise ValueError(f"the bank wants one label in 0 … {classes - 1} for each of its {len(bank)} rows")
    similarity, index = neighbours(bank, queries, max(ks), budget)
    # Dividing all of a query's weights by the largest changes no vote and keeps small temperatures finite.
    weight = ((similarity - similarity[:, :1]) / temperature).exp()  # [Q, k]
    rows = max(1, budget // (4 * classes))
    blocks = list(zip(torch.split(weight, rows), torch.split(labels[index], rows), strict=True))
    return {k: torch.cat([votes(part[:, :k], label[:, :k], classes).argmax(1) for part, label in blocks]) for k in ks}


def votes(weight: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The sum of each query's weights ``[q, k]`` by class of the neighbours, labels ``[q, k]`` → ``[q, classes]``.

    Neighbour after neighbour: a scatter of all at once adds in no fixed order on CUDA.
    """
    total, rows = weight.new_zeros(len(weight), classes), torch.arange(len(weight), device=weight.device)
    for one, label in zip(weight.unbind(1), labels.unbind(1), strict=True):
        total[rows, label] += one
    return total


@torch.no_grad()
def neighbours(bank: Tensor, queries: Tensor, k: int, budget: int) -> tuple[Tensor, Tensor]:
    """Cosine similarity ``[Q, k]``, largest first, and bank row ``[Q, k]`` of each query's k nearest bank rows.

    bank: ``[M, F]``; queries: ``[Q, F]``; budget: bytes for one block's working memory, beside normalised copies of
    both inputs. A row of zeros has similarity 0 to everything. Raises UserError if k is not within 1 … M or a
    feature is not finite.
    """
    if not 1 <= k <= len(bank):
        raise UserError(f"k-NN with k = {k} wants 1 ≤ k ≤ {len(bank)}, the images in the bank: choose k in that range.")
    with full_float32(bank.device):
        bank, queries = _directions(bank), _directions(queries)
        scan = cache(partial(_Scan, bank))
        similarity = queries.new_empty(len(queries), k)
        index = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
        rows = min(_MOST_ROWS, max(1, budget // (_BYTES_PER_SIMILARITY * len(bank))))
        most = 4 * k + len(bank) // _PAIR_COST  # candidates per query beyond which the next slower way is cheaper
        for start in range(0, len(queries), rows):
            block = queries[start : start + rows]
            for dtype in _scan_precisions(bank.device):
                candidates = scan(dtype).candidates(block, k)
                if int(candidates.count_nonzero()) <= most * len(block):
                    break
            else:  # many copies of one bank row, as a collapsed network makes them
                candidates = _k_largest(block, bank, k)
            similarity[start : start + rows], index[start : start + rows] = _nearest(block, bank, candidates, k)
        return similarity, index


class _Scan:
    """The bank in ``dtype``, to rule out the rows that are certainly not among a query's k nearest."""

    def __init__(self, bank: Tensor, dtype: torch.dtype) -> None:
        # q·(b − c) ranks the bank rows b as q·b does, whatever c is; around their mean the rows are shorter,
        # most of all in features that share one large direction, and rounding errors shrink with them.
        centred = bank - bank.mean(0)
        self.bank = centred.to(dtype)  # [M, F]
        self.length = centred.norm(dim=1).max()
        self.rounding = (centred - self.bank).norm(dim=1).max()

    def candidates(self, queries: Tensor, k: int) -> Tensor:
        """Mask ``[q, M]`` that holds every query's k nearest bank rows, and few others."""
        dtype = self.bank.dtype
        rounded = queries.to(dtype)
        similarity = rounded @ self.bank.T  # [q, M]
        # With q̂ and b̂ rounded, |q·b − q̂·b̂| ≤ ‖q − q̂‖‖b‖ + ‖q̂‖‖b − b̂‖; summing F products in float32 adds at most
        # F·2⁻²⁴‖q̂‖‖b̂‖, doubled here to cover this arithmetic itself.
        error = (queries - rounded).norm(dim=1, keepdim=True) * self.length + 1.01 * self.rounding
        error += (self.bank.shape[1] + 8) * 2.0**-23 * self.length  # [q, 1]
        # k rows scan at `reached` or above, so k rows are truly at `lowest` or above, and so are the k nearest; before
        # the scan's own result was rounded they came to `lowest` − error. Rounding keeps order: compare after it.
        reached = _k_reach(similarity, k).float()
        lowest = reached - torch.finfo(dtype).eps / 2 * reached.abs() - error
        possible: Tensor = similarity >= (lowest - error).to(dtype)
        return possible


def _scan_precisions(device: torch.device) -> list[torch.dtype]:
    """From fast to slow; bfloat16 only where the processor multiplies it natively."""
    fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return [torch.bfloat16, torch.float32] if fast else [torch.float32]


def _directions(x: Tensor) -> Tensor:
    """Rows scaled to length 1, in float32; rows of zeros stay. Neither tiny nor huge rows under- or overflow."""
    x = x.float()
    largest = x.abs().amax(1, keepdim=True)
    if not bool(largest.isfinite().all()):
        raise UserError("k-NN wants finite features, but some are infinite or not a number: the network has diverged.")
    x = x / largest.masked_fill(largest == 0, 1)
    return x.div_(x.norm(dim=1, keepdim=True).clamp_min(1))  # the largest entry is 1, so only zeros are shorter


def _k_reach(similarity: Tensor, k: int) -> Tensor:
    """A value ``[q, 1]`` that at least k entries of each row ``[q, M]`` reach, close to the k-th largest.

    The k largest among the maxima of disjoint strips are k different entries, and maxima are far fewer to sort.
    """
    size = similarity.shape[1]
    length = max(1, min(16, size // (4 * k)))
    strips = similarity[:, : size // length * length].view(len(similarity), length, -1)
    reached: Tensor = strips.amax(1).topk(k).values[:, -1:]
    return reached


def _k_largest(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    """Mask ``[q, M]`` of exactly k bank rows per query, the first among equals; a full sort."""
    similarity = queries @ bank.T  # [q, M]
    index = similarity.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, index, True)


def _nearest(queries: Tensor, bank: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarity and bank row ``[q, k]`` of the k best candidates per query, compared pair by pair."""
    row, column = candidates.nonzero(as_tuple=True)
    count = torch.bincount(row, minlength=len(queries))  # [q]; a sum would first copy the mask to int64
    start = F.pad(count.cumsum(0), (1, 0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        pairs = torch.sparse_csr_tensor(
            start, column, queries.new_zeros(len(column)), candidates.shape, check_invariants=False
        )
    values = torch.sparse.sampled_addmm(pairs, queries, bank.T, beta=0).values()
    # Queries have different numbers of candidates: line them up in a rectangle, the missing ones last.
    filled = torch.arange(int(count.max()), device=count.device) < count[:, None]
    similarity = values.new_full(filled.shape, -torch.inf).masked_scatter_(filled, values)
    index = column.new_zeros(filled.shape).masked_scatter_(filled, column)
    # Candidates stand in the order of the bank, which a stable sort keeps among equals.
    ranked = similarity.sort(dim=1, descending=True, stable=True)
    return ranked.values[:, :k], index.gather(1, ranked.indices[:, :k])
