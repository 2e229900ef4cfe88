"""How much room embeddings take: measures by which a collapse is noticed, and warnings of it.

Letters: N images, D embedding width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def embedding_std(z: Tensor) -> float:
    """Standard deviation of L2-normalised rows ``[N, D]``, averaged over the D dimensions (Chen & He 2021, SimSiam).

    0 when all rows point the same way, about 1/√D when they point everywhere alike.
    """
    return float(_directions(z).std(dim=0, correction=0).mean())


def rankme(z: Tensor) -> float:
    """The effective rank of ``[N, D]``, from 1 to min(N, D) (Garrido et al. 2023, RankMe, eq. 1).

    The exponential of the entropy of the singular values normalised to sum 1. Not a number if ``z`` is not finite.
    """
    z = z.detach().float()
    if not bool(z.isfinite().all()):
        return math.nan
    values = torch.linalg.svdvals(z)
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny) + 1e-7  # the paper's ε
    return float((-share * share.log()).sum().exp())


def alignment(z1: Tensor, z2: Tensor) -> float:
    """Mean squared distance of two views' normalised embeddings ``[N, D]`` (Wang & Isola 2020, α = 2).

    0 when the views of an image agree, 2 when they have nothing in common, 4 when they are opposite.
    """
    return float((_directions(z1) - _directions(z2)).square().sum(1).mean())


def uniformity(z: Tensor, t: float = 2) -> float:
    """Logarithm of the mean Gaussian potential exp(−t · distance²) over pairs of rows (Wang & Isola 2020).

    0 when all normalised rows of ``[N, D]`` are equal, towards −2t when they spread evenly in many dimensions. Time
    and memory grow with N². Not a number for fewer than two rows, which make no pair.
    """
    return float(F.pdist(_directions(z)).square().mul(-t).exp().mean().log())


def collapse_warnings(panel: dict[str, float], dimension: int, rows: int) -> list[str]:
    """One sentence for every sign of collapse in ``panel``, the measures of ``[rows, dimension]`` embeddings by name.

    Knows ``embedding_std``, ``rankme`` and ``uniformity``; what the panel lacks is not judged.
    """
    broken = sorted(name for name, value in panel.items() if not math.isfinite(value))
    warnings = [f"Diverged: {', '.join(broken)} of the embeddings is infinite or not a number."] if broken else []

    # The variances of normalised rows add up to 1 − ‖mean row‖². At a fifth of the isotropic 1/√D in every dimension
    # that is 0.04: 96 % of the squared length lies in the direction common to all rows.
    isotropic = 1 / math.sqrt(dimension)
    spread = panel.get("embedding_std", isotropic)
    if spread < 0.2 * isotropic:
        warnings.append(
            f"Collapsed: embeddings of different images point the same way "
            f"(standard deviation {spread:.2g}, isotropic would be {isotropic:.2g})."
        )

    # Below a twentieth of the dimensions that N rows can fill, the others carry next to nothing; and one direction
    # alone has rank 1 whatever the width, so 1.5 is few unless there is room for no more than one.
    room = min(dimension, rows)
    rank = panel.get("rankme", float(room))
    if room > 1 and rank < max(1.5, 0.05 * room):
        warnings.append(f"Collapsed to few dimensions: the embeddings have effective rank {rank:.1f} of {room}.")

    # With t = 2, −0.2 is a squared distance of about 0.1 between normalised embeddings; unrelated ones are 2 apart.
    potential = panel.get("uniformity", -math.inf)
    if potential > -0.2:
        warnings.append(
            f"Collapsed: embeddings of different images lie close together "
            f"(uniformity {potential:.2f}; well-spread ones have −2 or less)."
        )
    return warnings


def _directions(z: Tensor) -> Tensor:
    """Rows of length 1 in float32; rows of zeros stay."""
    return F.normalize(z.detach().float(), dim=1)
