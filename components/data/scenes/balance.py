"""Giving each item one of the options that it allows, so that all options are used equally often, as far as possible.

Letters: `B` items, `A` options.
"""

from __future__ import annotations

import numpy as np


def balanced(allowed: np.ndarray, bits: np.ndarray, used: np.ndarray | None = None) -> np.ndarray:
    """Choose an allowed option for each item.

    Items first choose at random; then items move from an option to one that is used less by two or more, the widest
    difference first, until none can.

    Args:
        allowed: Which options an item allows, bool (B, A).
        bits: Random bits for each item and option, uint64 (B, A): what is chosen first, and who moves.
        used: How often each option was given before, int64 (A,); those are counted in.

    Returns:
        Index of the chosen option, int64 (B,); -1 for items that allow none.
    """
    options = allowed.shape[1]
    chosen = np.where(allowed, bits | np.uint64(1), np.uint64(0)).argmax(1)
    chosen[~allowed.any(1)] = -1
    given = chosen[:, None] == np.arange(options)
    used = given.sum(0) + (0 if used is None else used)
    # How many items could move from the first option to the second.
    movable = given.astype(np.int64).T @ allowed.astype(np.int64)
    while True:
        excess = np.where(movable > 0, used[:, None] - used[None, :], 0)
        source, target = divmod(int(excess.argmax()), options)
        if excess[source, target] < 2:
            return chosen
        movers = np.flatnonzero((chosen == source) & allowed[:, target])
        number = int(min(len(movers), excess[source, target] // 2))
        movers = movers[bits[movers, target].argsort(kind="stable")[:number]]
        chosen[movers] = target
        free = allowed[movers].sum(0)
        movable[source] -= free
        movable[target] += free
        used[source] -= number
        used[target] += number
