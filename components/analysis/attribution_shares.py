"""How a similarity is shared out among pairs of tokens.

Pairs are sorted by their signed attribution, the largest first, and added up. The running sum over the total rises
above 1 where some pairs are negative and comes back to 1 with the last of them: what the negative pairs take away
belongs to the explanation, so it is never left out of the total.

Letters: S_a, S_b tokens of two texts, P = S_a S_b pairs.
"""

from __future__ import annotations

import numpy as np

from components.analysis.attribution import AttributionError


def cumulative_shares(matrix: np.ndarray) -> np.ndarray:
    """Return the share of the total that the 1, 2, ..., P largest pairs of a matrix (S_a, S_b) add up to, (P,).

    Raises:
        AttributionError: The total is not positive, so that a share of it has no meaning.
    """
    values = np.sort(np.asarray(matrix, dtype=np.float64), axis=None)[::-1]
    total = values.sum()
    if not total > 0:
        raise AttributionError(f"attributions add up to {total:.3g}; a share needs a positive total.")
    return np.cumsum(values) / total


def pairs_needed(matrix: np.ndarray, share: float) -> float:
    """Return the smallest fraction of pairs, the largest first, whose attributions reach a share of the total.

        (k - 1 + (share - s_{k-1}) / (s_k - s_{k-1})) / P,      s the cumulative shares, s_k the first to reach `share`

    The last pair counts in part, so that equal attributions need exactly `share` of the pairs, whatever P is.

    Args:
        matrix: Attributions, (S_a, S_b), with a positive total.
        share: Share to be reached, above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise AttributionError(f"share is {share}; expected a number above 0 and at most 1.")
    reached = cumulative_shares(matrix)
    # Rounding may leave the full sum a little below 1.
    last = min(int(np.searchsorted(np.maximum.accumulate(reached), share)), len(reached) - 1)
    before = reached[last - 1] if last else 0.0
    part = min((share - before) / (reached[last] - before), 1.0) if reached[last] > before else 1.0
    return (last + part) / len(reached)


def tokens_touched(matrix: np.ndarray, share: float) -> float:
    """Return the share of the tokens of both texts that take part in the pairs counted by `pairs_needed`."""
    matrix = np.asarray(matrix, dtype=np.float64)
    count = int(np.ceil(pairs_needed(matrix, share) * matrix.size - 1e-9))
    rows, columns = np.unravel_index(np.argsort(-matrix, axis=None, kind="stable")[:count], matrix.shape)
    return (len(np.unique(rows)) + len(np.unique(columns))) / sum(matrix.shape)


def interaction_share(matrix: np.ndarray) -> float:
    """Return how much of the variance over pairs the means of rows and columns leave unexplained, 0 to 1.

    0 says that the matrix tells nothing of pairs that two vectors, one for each text, would not tell as well.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    centred = matrix - matrix.mean()
    left = centred - centred.mean(1, keepdims=True) - centred.mean(0, keepdims=True)
    spread = np.square(centred).sum()
    # A constant matrix has no variance but that of rounding.
    return float(np.square(left).sum() / spread) if spread > 1e-24 * np.square(matrix).sum() else 0.0
