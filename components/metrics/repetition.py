"""How much a text repeats itself. Letters: B texts, T tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from components.errors import TesseraError

LOOP_SHARE = 0.7
"""A continuation with fewer distinct 4-grams than this share of all is called a loop."""


def distinct_ngrams(tokens: Tensor, length: int = 4) -> Tensor:
    """Return the share of distinct n-grams among all n-grams of each text (distinct-n), (B, T) to (B,) float64.

    Args:
        tokens: Ids, (B, T).
        length: n.

    Raises:
        TesseraError: The texts are shorter than n.

    Source: Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", section 5.
    """
    if tokens.shape[1] < length:
        raise TesseraError(f"Texts of {tokens.shape[1]} tokens have no {length}-gram.")
    grams = tokens.unfold(1, length, 1)  # [B, T - n + 1, n]
    shares = [len(torch.unique(text, dim=0)) / grams.shape[1] for text in grams]
    return torch.tensor(shares, dtype=torch.float64)
