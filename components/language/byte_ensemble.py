"""An ensemble of models that share no vocabulary, joined where they speak the same language: at the next byte.

    p(c | x) = sum over k of w_k p_k(c | x)

Letters: K members, A symbols.

Source: Phan et al. 2024, "Exact Byte-Level Probabilities from Tokenized Language Models for FIM-Tasks and Model
Ensembles", the ensemble of byte-level predictions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.errors import TesseraError
from components.language.byte_stream import ByteModel


class EnsembleError(TesseraError):
    """Members or weights that do not make an ensemble."""


class ByteEnsemble:
    """The arithmetic mean of next-byte distributions; each member keeps its own state.

    Its bits of a byte are never more than the weighted mean of the members' bits (Jensen).

    Args:
        members: K models behind the same text, over the same symbols.
        weights: w_k, positive, sum 1; uniform by default.

    Raises:
        EnsembleError: Members spell other symbols, or the weights do not fit.
    """

    def __init__(self, members: Sequence[ByteModel], weights: Sequence[float] | None = None) -> None:
        if len({member.alphabet for member in members}) != 1:
            sizes = [len(member.alphabet) for member in members]
            raise EnsembleError(
                f"The members spell alphabets of {sizes} symbols; expected at least one member and the same symbols in "
                "all. Train byte-level tokenizers with byte_level.BYTES as alphabet."
            )
        weights = np.full(len(members), 1 / len(members)) if weights is None else np.array(weights, np.float64)
        if len(weights) != len(members) or (weights <= 0).any() or abs(weights.sum() - 1) > 1e-9:
            raise EnsembleError(f"weights {weights.tolist()} for {len(members)} members; expected positive, sum 1.")
        self._members = list(members)
        self._log_weights = np.log(weights)[:, None]
        self.alphabet = members[0].alphabet

    def log_probabilities(self) -> np.ndarray:
        """Return ln P(next symbol | text), (A + 1,) float64; the last is the end of the text."""
        each = np.stack([member.log_probabilities() for member in self._members])
        return np.logaddexp.reduce(each + self._log_weights, axis=0)

    def append(self, symbol: str) -> None:
        """Take one more symbol of the text, in every member."""
        for member in self._members:
            member.append(symbol)
