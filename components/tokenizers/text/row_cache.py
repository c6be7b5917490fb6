"""Rows over a vocabulary that are computed once and kept while there is room.

Letters: V tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)

BYTES = 128 << 20
"""Memory that one cache takes at most: 4,096 rows of 32,768 tokens."""


class RowCache(Generic[Key]):
    """Boolean rows by key, read-only; the one asked for longest ago goes first.

    Args:
        compute: Makes the row of a key, (V,) booleans.
        memory: Most bytes held.
    """

    def __init__(self, compute: Callable[[Key], np.ndarray], memory: int = BYTES) -> None:
        self._compute = compute
        self._memory = memory
        self._rows: OrderedDict[Key, np.ndarray] = OrderedDict()
        self._held = 0

    def __getitem__(self, key: Key) -> np.ndarray:
        """Return the row of a key, (V,)."""
        if key in self._rows:
            self._rows.move_to_end(key)
            return self._rows[key]
        row = self._compute(key)
        row.setflags(write=False)
        self._rows[key] = row
        self._held += row.nbytes
        while self._held > self._memory and len(self._rows) > 1:
            self._held -= self._rows.popitem(last=False)[1].nbytes
        return row
