"""An interpolated Kneser-Ney bigram model of sequences over a small alphabet: what counting alone achieves.

    p(w | v)  = max(n(v, w) - d, 0) / n(v)  +  d t(v) / n(v)  p'(w)
    p'(w)     = max(m(w) - d, 0) / m        +  d s / m        1 / U

n counts pairs, t(v) different symbols behind v, m(w) different symbols before w, m their sum, s symbols with m(w) > 0,
and d = n_1 / (n_1 + 2 n_2) from pairs that occur once and twice. A sequence begins and ends with an end mark.

Letters: `U` symbols, the end mark included (the last one).

Source: Kneser and Ney 1995; interpolated as by Chen and Goodman 1999, section 4.1.6 (d: Ney, Essen and Kneser 1994).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from components.errors import TesseraError


class KneserNeyError(TesseraError):
    """Sequences that the model cannot count."""


class KneserNeyBigram:
    """See the module.

    Args:
        sequences: Symbols 0 .. size - 1 of each training sequence.
        size: Symbols without the end mark.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], size: int) -> None:
        self.size = size
        counts = np.zeros((size + 1, size + 1))
        for sequence in sequences:
            np.add.at(counts, self._pairs(sequence), 1)
        if not counts.any():
            raise KneserNeyError("there is no training sequence; give the training text.")
        once, twice = (int((counts == times).sum()) for times in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        before = (counts > 0).sum(0)
        total = before.sum()
        lower = np.maximum(before - discount, 0) / total + discount * (before > 0).sum() / total / (size + 1)
        follows, said = (counts > 0).sum(1, keepdims=True), counts.sum(1, keepdims=True)
        known = (
            np.maximum(counts - discount, 0) / np.maximum(said, 1) + discount * follows / np.maximum(said, 1) * lower
        )
        self._law = np.where(said > 0, known, lower)

    def law(self) -> np.ndarray:
        """Return p(w | v), (U, U), rows v."""
        return self._law

    def bits(self, sequence: Sequence[int]) -> float:
        """Return -log2 p of a sequence and its end."""
        return float(-np.log2(self._law[self._pairs(sequence)]).sum())

    def _pairs(self, sequence: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        marked = np.array([self.size, *sequence, self.size])
        if len(sequence) and not 0 <= marked[1:-1].min() <= marked[1:-1].max() < self.size:
            raise KneserNeyError(f"a sequence has symbol {marked[1:-1].max()}; expected 0 to {self.size - 1}.")
        return marked[:-1], marked[1:]
