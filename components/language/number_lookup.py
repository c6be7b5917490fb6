"""The number tokens of a vocabulary as a loss or a metric needs them.

Letters: V tokens of the vocabulary, K number tokens; "..." any leading axes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.errors import TesseraError
from components.tokenizers.text.numeric import NumberTokens


class NumberTokensError(TesseraError):
    """Number tokens do not fit a vocabulary."""


class NumberLookup(nn.Module):
    """Ids and values of number tokens as buffers that move with a module.

    Args:
        tokens: The number tokens and their values.
        vocabulary_size: V.
    """

    def __init__(self, tokens: NumberTokens, vocabulary_size: int) -> None:
        super().__init__()
        if not tokens.ids or len(set(tokens.ids)) < len(tokens.ids) or len(tokens.ids) != len(tokens.values):
            raise NumberTokensError(f"number tokens {tokens.ids} with values {tokens.values}: expected ids, each once.")
        if not 0 <= min(tokens.ids) <= max(tokens.ids) < vocabulary_size:
            raise NumberTokensError(
                f"number tokens {tokens.ids} are not all below the vocabulary size {vocabulary_size}."
            )
        ids, values = torch.tensor(tokens.ids), torch.tensor(tokens.values)
        place = torch.full((vocabulary_size,), -1)
        place[ids] = torch.arange(len(ids))
        self.register_buffer("ids", ids, persistent=False)  # (K,)
        self.register_buffer("values", values, persistent=False)  # (K,)
        self.register_buffer("place", place, persistent=False)  # (V,): index into ids, -1 for other tokens

    def distribution(self, logits: Tensor) -> Tensor:
        """Return q, the softmax over number tokens only: (..., V) to (..., K), in single precision or better."""
        restricted = logits.index_select(-1, self.ids)
        return (restricted if restricted.dtype == torch.float64 else restricted.float()).softmax(-1)

    def labels(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether each label is a number token, and its index into `ids` (0 where it is none)."""
        place = self.place[labels.clamp(min=0)].masked_fill(labels < 0, -1)
        return place >= 0, place.clamp(min=0)
