"""The number token loss: a term on the ordinary token head that grows with the distance of predicted digits.

Letters: B sequences, T tokens, V tokens of the vocabulary, K number tokens; "..." any leading axes.

    q_t   = softmax of the logits at t over the K number tokens only
    NTL-WAS   l_t = W1(q_t, y_t) = sum_j q_tj |v_j - y_t|
    NTL-MSE   l_t = (y_t - sum_j q_tj v_j)^2
    loss  = mean of l_t over the positions whose label is a number token, 0 where there are none

The sum form of W1 holds for any spacing of the values, because the label is one point. NTL-MSE is zero for every q
whose mean is the label (half on 3 and half on 5 for a 4), NTL-WAS only for q on the label itself.

Source: Zausinger et al. 2025, "Regress, Don't Guess -- A Regression-like Loss on Number Tokens for Language Models",
section 3.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from components.errors import TesseraError
from components.language.number_lookup import NumberLookup
from components.tokenizers.text.numeric import NumberTokens


class NumberLossError(TesseraError):
    """The number token loss was configured in a way that has no meaning."""


class NumberTokenLoss(NumberLookup):
    """NTL-WAS or NTL-MSE on the token head; every place of a number weighs the same.

    Args:
        tokens: The number tokens and their values.
        vocabulary_size: V.
        form: "wasserstein" or "squared".
    """

    def __init__(self, tokens: NumberTokens, vocabulary_size: int, form: Literal["wasserstein", "squared"]) -> None:
        super().__init__(tokens, vocabulary_size)
        if form not in ("wasserstein", "squared"):
            raise NumberLossError(f"form is {form!r}; expected 'wasserstein' or 'squared'.")
        self._distance = wasserstein if form == "wasserstein" else squared_error

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar whose gradient is zero on the logits of all other tokens.

        Args:
            logits: (B, T, V).
            labels: (B, T) token ids, negative where nothing is predicted.
        """
        counted, place = self.labels(labels)
        q = self.distribution(logits)
        values = self.values.to(q.dtype)
        distance = self._distance(q, values, values[place])
        # No position is picked out: that would make every step wait for the device.
        return distance.masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)


def wasserstein(q: Tensor, values: Tensor, label: Tensor) -> Tensor:
    """Return W1(q, y) = sum_j q_j |v_j - y| of distributions (..., K) on values (K,) to single values y (...)."""
    return (q * (values - label[..., None]).abs()).sum(-1)


def squared_error(q: Tensor, values: Tensor, label: Tensor) -> Tensor:
    """Return (y - sum_j q_j v_j)^2 of distributions (..., K) on values (K,) to single values y (...)."""
    return (label - q @ values).square()


def wasserstein_between(q: Tensor, p: Tensor, values: Tensor) -> Tensor:
    """Return W1 of two distributions on the same values, such as to a smoothed label.

        W1(q, p) = sum_k (v_(k+1) - v_(k)) | sum_{j<=k} q_(j) - p_(j) |,      values in ascending order

    Args:
        q: (..., K).
        p: (..., K).
        values: (K,), in any order and spacing.
    """
    values, order = values.sort()
    excess = (q - p)[..., order].cumsum(-1)[..., :-1]
    return (excess.abs() * values.diff()).sum(-1)


def build(tokens: NumberTokens, vocabulary_size: int, form: Literal["wasserstein", "squared"]) -> NumberTokenLoss:
    """Make the loss for a vocabulary, on the CPU."""
    return NumberTokenLoss(tokens, vocabulary_size, form)
