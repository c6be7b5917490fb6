"""Embeddings of the Regression Transformer: what a number token learns, plus what its value says.

Letters: V tokens of the vocabulary, D width, K number tokens; "..." any leading axes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from components.tokenizers.text.numeric import NumberTokens


def numeric_encodings(values: Tensor, width: int) -> Tensor:
    """Return the fixed encoding of values, (K,) to (K, D), with entries in [-1, 1].

        NE(v)_j = (-1)^j s(v) / (j + 1),      s(v) = sign(v) ln(1 + |v|) / ln(1 + max |v|)

    Values close to each other have encodings close to each other, which a table of free vectors has to learn. The
    logarithm keeps small values visible beside large ones.

    Source: Born and Manica 2023, "Regression Transformer", section "Numerical encodings" (there s(v) = v); Zausinger
    et al. 2025, "Regress, Don't Guess", released code (logarithmic scale).
    """
    values = values.double()
    scaled = values.sign() * values.abs().log1p() / math.log1p(max(float(values.abs().max()), 1e-9))
    channel = torch.arange(width, dtype=torch.float64, device=values.device)
    return (scaled[:, None] * (-1) ** channel / (channel + 1)).float()


class PlaceEmbedding(nn.Embedding):
    """A learned embedding with the fixed encoding of each number token's value added to it.

    Args:
        learned: Embedding that is replaced; the values of its weight are taken over.
        tokens: The number tokens and their values.
    """

    def __init__(self, learned: nn.Embedding, tokens: NumberTokens) -> None:
        super().__init__(*learned.weight.shape, _weight=learned.weight, device=learned.weight.device)
        encodings = torch.zeros(learned.weight.shape, device="cpu")
        encodings[list(tokens.ids)] = numeric_encodings(torch.tensor(tokens.values, device="cpu"), encodings.shape[1])
        self.register_buffer("encodings", encodings.to(learned.weight.device), persistent=False)  # (V, D)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the embeddings of token ids, (...) to (..., D)."""
        return super().forward(tokens) + self.encodings[tokens]


def build(learned: nn.Embedding, tokens: NumberTokens) -> PlaceEmbedding:
    """Put the encodings of number tokens over a learned embedding."""
    return PlaceEmbedding(learned, tokens)
