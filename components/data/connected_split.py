"""A split of pairs of texts in which no text is on both sides.

Pairs that share a text, directly or through other pairs, form a group and stay together. Groups in random order go to
the test part while they fit into it, until it is full.

Letters: N pairs, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from components.errors import TesseraError


class ConnectedSplitError(TesseraError):
    """No split of this size exists."""


def connected_groups(first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    """Return the group of each pair (first[n], second[n]), int64 (N,); texts are equal up to case and outer spaces."""
    texts = [text.strip().casefold() for text in (*first, *second)]
    _, numbers = np.unique(texts, return_inverse=True)
    left, right = numbers[: len(first)], numbers[len(first) :]
    count = int(numbers.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1][left].astype(np.int64)


def held_out(groups: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    """Return which pairs are in the test part, bool (N,), exactly `size` of them.

    Args:
        groups: Group of each pair, (N,).
        size: Pairs of the test part.
        seed: Order in which groups are offered.

    Raises:
        ConnectedSplitError: There are not more pairs than that, or whole groups do not add up to the size.
    """
    if not 0 < size < len(groups):
        raise ConnectedSplitError(f"a test part of {size} of {len(groups)} pairs; expected at least 1 and not all.")
    sizes = np.bincount(groups)
    room, chosen = size, np.zeros(len(sizes), dtype=bool)
    for group in np.random.default_rng(seed).permutation(len(sizes)):
        if 0 < sizes[group] <= room:
            chosen[group] = True
            room -= sizes[group]
    if room:
        raise ConnectedSplitError(
            f"groups of {sizes.min()} to {sizes.max()} pairs leave {room} of {size} places of the test part empty; "
            "choose another size."
        )
    return chosen[groups]
