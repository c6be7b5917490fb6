"""Vocabulary growth: how fast new types appear while a corpus is read.

    Heaps   V(t) = K t^beta              types among the first t tokens
    Simon   alpha(t) = dV / dt           chance that the next token is a new type

Letters: `T` tokens (or n-grams), `D` documents, `V` types, `P` pairs of a type and a document that has it.

Sources: Herdan 1960, Heaps 1978 (the law); Simon 1955 (innovation rate).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from components.analysis.token_corpus import Grams
from components.errors import TesseraError

_NEVER = np.iinfo(np.int64).max // 2


class GrowthError(TesseraError):
    """A growth curve has too few points to fit a law to."""


class VocabularyGrowth:
    """When each type is first seen, for any order of the documents.

    Of the occurrences of a type inside one document only the first can matter, so an order costs as much as there are
    pairs of a type and a document.

    Args:
        grams: n-grams of a corpus, see TokenCorpus.grams.
        documents: D.
    """

    def __init__(self, grams: Grams, documents: int) -> None:
        self._lengths = np.bincount(grams.documents, minlength=documents)
        starts = np.concatenate([[0], self._lengths.cumsum()])[:-1]
        offsets = np.arange(len(grams.types)) - starts[grams.documents]
        keys = grams.types * documents + grams.documents
        # n-grams stand in reading order, so the first of equal keys is the first occurrence in its document.
        _, first = np.unique(keys, return_index=True)
        kinds = grams.types[first]
        self._documents, self._offsets = grams.documents[first], offsets[first]
        self._starts_of_types = np.flatnonzero(np.concatenate([[True], kinds[1:] != kinds[:-1]]))
        self.tokens, self.types = len(grams.types), len(self._starts_of_types)

    @cached_property
    def documents(self) -> int:
        """D."""
        return len(self._lengths)

    def first_seen(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return after how many tokens each type is seen, and where each document of the order ends.

        Args:
            order: Documents in the order of reading; one that stands twice is read twice, one that is left out never.

        Returns:
            Tokens read when the type is first seen, int64 (V,), with a huge number for types that never are; and the
            tokens read after each document of the order.
        """
        ends = self._lengths[order].cumsum()
        begin = np.full(self.documents, _NEVER)
        # Written from behind, the earliest reading of a document stays.
        begin[order[::-1]] = (ends - self._lengths[order])[::-1]
        seen = begin[self._documents] + self._offsets + 1
        return np.minimum.reduceat(seen, self._starts_of_types), ends

    def curve(self, order: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return V(t) at ascending t, for documents in this order."""
        seen, _ = self.first_seen(order)
        return np.bincount(np.searchsorted(at, seen), minlength=len(at) + 1)[: len(at)].cumsum()

    def share_seen(self, order: np.ndarray, share: float) -> float:
        """Return which share of all types that the order has is seen after a share of its tokens."""
        seen, ends = self.first_seen(order)
        live = seen < _NEVER
        return float((seen <= share * ends[-1]).sum() / live.sum())

    def documents_until(self, order: np.ndarray, share: float) -> int:
        """Return how many documents are read until a share of all types that the order has is seen."""
        seen, ends = self.first_seen(order)
        seen = np.sort(seen[seen < _NEVER])
        return int(np.searchsorted(ends, seen[int(np.ceil(share * len(seen))) - 1])) + 1


def growth_grid(tokens: int, *, first: float = 0.005, points: int = 40) -> np.ndarray:
    """Return numbers of tokens, evenly spaced in ln t, from a share `first` of the corpus to all of it."""
    return np.unique(np.geomspace(max(1.0, first * tokens), tokens, points).round().astype(np.int64))


def heaps_fit(at: np.ndarray, seen: np.ndarray) -> tuple[float, float]:
    """Fit `ln V = ln K + beta ln t` by least squares; return K and beta.

    The points are evenly spaced in ln t where `growth_grid` chose them, so that every decade counts the same.

    Raises:
        GrowthError: There are fewer than two points.
    """
    if len(at) < 2:
        raise GrowthError(f"{len(at)} point of a growth curve; expected at least 2.")
    beta, constant = np.polyfit(np.log(at), np.log(seen), 1)
    return float(np.exp(constant)), float(beta)


def innovation_rate(at: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the mean of dV / dt between neighbouring points of a growth curve, one number fewer than points."""
    return np.diff(seen) / np.diff(at)
