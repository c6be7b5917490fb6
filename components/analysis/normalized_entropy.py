"""How evenly symbols are used: the entropy of their frequencies over that of equal ones.

    eta(V) = H(p) / log |V|,    H(p) = -sum_k p_k log p_k

1 for equal frequencies, 0 where one symbol is all there is. Symbols of the vocabulary that never occur count in |V|.

Sources: Zouhar et al. 2023, "Tokenization and the Noiseless Channel", section 3 (Shannon efficiency); Dekel and
Fernandez 2024, "Exploring the Benefits of Tokenization of Discrete Acoustic Units", section 2.
"""

from __future__ import annotations

import numpy as np

from components.errors import TesseraError


class EntropyError(TesseraError):
    """Counts whose evenness is not defined."""


def normalized_entropy(counts: np.ndarray) -> float:
    """Return eta of the counts of every symbol of a vocabulary, (V,), from 0 to 1.

    Raises:
        EntropyError: There are fewer than two symbols, a count is negative, or nothing was counted.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or len(counts) < 2 or (counts < 0).any() or counts.sum() == 0:
        raise EntropyError(f"counts {counts.shape}, sum {counts.sum():g}; expected two symbols or more, one counted.")
    shares = counts[counts > 0] / counts.sum()
    # Rounding can bring equal shares a little above the maximum.
    return float(min(1.0, -(shares * np.log(shares)).sum() / np.log(len(counts))))
