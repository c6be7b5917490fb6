"""How well scores tell pairs of the same speaker from pairs of two.

Letters: `N` pairs.

Source: Martin et al. 1997, "The DET Curve in Assessment of Detection Task Performance" (the two error rates).
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.errors import TesseraError


class VerificationError(TesseraError):
    """Scores that no error rate can be taken from."""


def equal_error_rate(scores: Tensor, same: Tensor) -> float:
    """Return the rate at which as many different pairs are accepted as same pairs are refused, 0 to 1.

    A pair is accepted where its score is at least the threshold. The rates are taken at every threshold that changes
    one, and linearly between the two thresholds where their order turns.

    Args:
        scores: (N,), larger for pairs that are more alike.
        same: Whether a pair is the same speaker, bool (N,).

    Raises:
        VerificationError: There is no pair of one of the two kinds.
    """
    same = same.bool()
    if not bool(same.any()) or bool(same.all()):
        raise VerificationError("Verification needs pairs of the same and pairs of different speakers.")
    values, place = torch.unique(scores.double(), return_inverse=True)
    kinds = torch.stack([same, ~same]).double()
    counts = torch.zeros(2, len(values), dtype=torch.float64, device=scores.device)
    counts.index_add_(1, place, kinds)
    # Column j: the threshold refuses the j lowest values.
    refused = torch.cat([counts.new_zeros(2, 1), counts.cumsum(1)], 1) / counts.sum(1, keepdim=True)
    misses, accepts = refused[0], 1 - refused[1]
    after = int((misses >= accepts).int().argmax())
    before = max(0, after - 1)
    gap_before, gap_after = (float(accepts[at] - misses[at]) for at in (before, after))
    share = 0.0 if gap_before == gap_after else gap_before / (gap_before - gap_after)
    return float(misses[before] + share * (misses[after] - misses[before]))


def all_pairs(vectors: Tensor, speakers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine of every pair of vectors (B, D) and whether their speakers (B,) are the same.

    Each of the B (B - 1) / 2 pairs stands once.
    """
    unit = torch.nn.functional.normalize(vectors.double(), dim=-1)
    rows, columns = torch.triu_indices(len(unit), len(unit), offset=1, device=vectors.device)
    return (unit @ unit.t())[rows, columns], speakers[rows] == speakers[columns]
