"""How a codebook is used.

Letters: `K` codebook size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def code_shares(indices: Tensor, codebook_size: int) -> Tensor:
    """Return the share of every code among `indices` (any shape), float64 (K,)."""
    counts = torch.bincount(indices.reshape(-1), minlength=codebook_size).double()
    return counts / counts.sum()


def usage(indices: Tensor, codebook_size: int) -> float:
    """Return the share of the codebook that occurs at least once, 0 to 1."""
    return float((code_shares(indices, codebook_size) > 0).double().mean())


def perplexity(indices: Tensor, codebook_size: int) -> float:
    """Return exp(entropy) of the codes: the number of codes that would be used if all were used equally, 1 to K."""
    return float(torch.special.entr(code_shares(indices, codebook_size)).sum().exp())
