"""Token models by counting: what a trained network must beat before anything is built on it.

Letters: N tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.errors import TesseraError


class UnigramCounts:
    """Frequencies of single tokens with additive smoothing: `P(t) = (n(t) + a) / (N + a V)`.

    Args:
        tokens: Training tokens, (N,) int64.
        vocabulary_size: V.
        addition: a.
    """

    def __init__(self, tokens: Tensor, vocabulary_size: int, addition: float = 0.1) -> None:
        _check(tokens, vocabulary_size)
        counts = torch.bincount(tokens, minlength=vocabulary_size).double() + addition
        self.log_probabilities = (counts / counts.sum()).log()

    def nats(self, tokens: Tensor) -> Tensor:
        """Return -ln P(t) of each token, any shape, float64."""
        return -self.log_probabilities[tokens]


class BigramCounts:
    """Frequencies of tokens behind a token: `P(t | s) = (n(s, t) + a) / (n(s) + a V)`.

    Args:
        tokens: Training tokens in their order, (N,) int64.
        vocabulary_size: V; the table has V^2 entries.
        addition: a.
    """

    def __init__(self, tokens: Tensor, vocabulary_size: int, addition: float = 0.1) -> None:
        _check(tokens, vocabulary_size)
        pairs = tokens[:-1] * vocabulary_size + tokens[1:]
        counts = torch.bincount(pairs, minlength=vocabulary_size**2).view(vocabulary_size, vocabulary_size)
        self._counts = counts.float()  # exact below 2^24
        self._totals = self._counts.double().sum(1)
        self._addition, self._size = addition, vocabulary_size

    def nats(self, tokens: Tensor) -> Tensor:
        """Return -ln P(t_i | t_i-1) of each token but the first, (..., T) to (..., T - 1), float64."""
        before, after = tokens[..., :-1], tokens[..., 1:]
        joint = self._counts[before, after].double() + self._addition
        return -(joint / (self._totals[before] + self._addition * self._size)).log()

    def likeliest(self, count: int) -> Tensor:
        """Return the `count` likeliest tokens behind each token in descending order, ties by id, (V, count) int64."""
        order = torch.sort(self._counts, dim=1, descending=True, stable=True).indices
        return order[:, :count].contiguous()


def _check(tokens: Tensor, vocabulary_size: int) -> None:
    if not len(tokens) or int(tokens.min()) < 0 or int(tokens.max()) >= vocabulary_size:
        raise TesseraError(
            f"{len(tokens)} tokens for a vocabulary of {vocabulary_size}; expected at least one, each id below that."
        )
