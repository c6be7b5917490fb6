"""How a codebook is used, and how many bits its codes really carry.

Letters: `...` any axes of vectors, `K` codebook size, `M` indices per vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def entropy_bits(indices: Tensor) -> float:
    """Return the entropy of the codes in bits per vector: what an ideal code for single vectors would spend.

    It is at most log2 of the number of vectors, so many vectors are needed for large codebooks. Memory grows with the
    number of vectors, not of codes.

    Args:
        indices: Any shape; every entry names one code.
    """
    return _entropy_of_counts(torch.unique(indices, return_counts=True)[1])


def entropy_bits_per_index(indices: Tensor) -> Tensor:
    """Return the entropy of each of a vector's indices in bits, float64 (M,), for indices (..., M).

    Their sum is what coding the indices one by one without context would spend; `joint_entropy_bits` is smaller by what
    they tell about one another.
    """
    columns = indices.reshape(-1, indices.shape[-1]).unbind(1)
    return torch.tensor([entropy_bits(column) for column in columns], dtype=torch.float64)


def joint_entropy_bits(indices: Tensor) -> float:
    """Return the entropy in bits per vector of all its indices together, for indices (..., M)."""
    return _entropy_of_counts(torch.unique(indices.reshape(-1, indices.shape[-1]), dim=0, return_counts=True)[1])


def usage_per_index(indices: Tensor, codebook_sizes: Sequence[int]) -> Tensor:
    """Return the share of each codebook that occurs at least once, float64 (M,), for indices (..., M)."""
    columns = indices.reshape(-1, indices.shape[-1]).unbind(1)
    shares = [len(torch.unique(column)) / size for column, size in zip(columns, codebook_sizes, strict=True)]
    return torch.tensor(shares, dtype=torch.float64)


def _entropy_of_counts(counts: Tensor) -> float:
    shares = counts.double() / counts.sum()
    return float(torch.special.entr(shares).sum()) / math.log(2)
