"""Similarity of two texts by the words that they share, which knows nothing of meaning or order."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")


def words(text: str) -> frozenset[str]:
    """Return the lower-cased words of a text: runs of letters, digits and underscores."""
    return frozenset(_WORD.findall(text.lower()))


def jaccard(first: str, second: str) -> float:
    """Return |A and B| / |A or B| of the words of two texts; 0 where neither has any."""
    one, other = words(first), words(second)
    return len(one & other) / len(one | other) if one | other else 0.0
