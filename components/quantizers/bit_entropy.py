"""Entropy of soft binary codes, without a sum over the 2^D codes.

A soft assignment that decreases with squared distance to codes of independent bits is a product over dimensions,

    p(c | z) = prod_i p(c_i | z_i),       p(bit i is 1 | z) = sigma(l_i),

Letters: `...` any leading axes, `D` bits of a code.

Sources: Yu et al. 2023 (MAGVIT-v2, section 3.1: the two entropies); Zhao, Xiong,
Kraehenbuehl 2024 (BSQ, section 4: factorisation).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Keeps the slope of the entropy finite where every vector agrees on a bit.
_LEAST = 1e-6


class CodeEntropies(NamedTuple):
    """Entropies of the codes in nats.

    Attributes:
        per_vector: E[H(p(. | z))], the mean over vectors: how undecided they are. Exact.
        of_batch: sum_i H(E[p_i]), the entropy of the product of the batch's bit frequencies. It replaces
            H(E[p(. | z)]), which would need all 2^D codes, and is never below it; equal where bits are independent
            within the batch.
    """

    per_vector: Tensor
    of_batch: Tensor


def code_entropies(logits: Tensor) -> CodeEntropies:
    """Return both entropies of soft codes with bit logits l, (..., D)."""
    flat = logits.reshape(-1, logits.shape[-1])
    # H(sigma(l)) = log(1 + exp(-|l|)) + |l| sigma(-|l|): no cancellation for decided bits.
    size = flat.abs()
    per_vector = (F.softplus(-size) + size * torch.sigmoid(-size)).sum(1).mean()
    frequency = torch.sigmoid(flat).mean(0).clamp(_LEAST, 1 - _LEAST)
    of_batch = (torch.special.entr(frequency) + torch.special.entr(1 - frequency)).sum()
    return CodeEntropies(per_vector, of_batch)
