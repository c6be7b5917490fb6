"""Which tokens may follow a sequence so that it stays valid: one Boolean row over the vocabulary.

A sequence is valid iff it is the encoding of the text that it spells (components.tokenizers.text.validity, which asks
token by token). Here whole rows are computed at once, and kept by the end of the sequence that decides them.

Letters: V tokens, L symbols of the longest token.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import numpy as np

from components.tokenizers.text.bpe import BytePairTokenizer
from components.tokenizers.text.merge_continuations import MergeContinuations
from components.tokenizers.text.row_cache import RowCache
from components.tokenizers.text.unigram import UnigramTokenizer
from components.tokenizers.text.unigram_continuations import UnigramContinuations
from components.tokenizers.text.validity import TextTokenizer, is_valid


class Continuations(Protocol):
    """Rows of tokens that keep a sequence valid."""

    def after(self, tokens: Sequence[int]) -> np.ndarray:
        """Return which tokens may follow a valid sequence, (V,) booleans that the caller leaves unchanged."""


class ReencodedContinuations:
    """The definition, token by token: for every tokenizer, and what the faster ways are tested against.

    Args:
        tokenizer: Any deterministic tokenizer.
        memory: The end of a valid sequence that decides what may follow; by default the tokenizer's own rule. The
            identity re-encodes everything.
    """

    def __init__(
        self, tokenizer: TextTokenizer, memory: Callable[[tuple[int, ...]], tuple[int, ...]] | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._memory = memory or tokenizer.validity_memory
        self._rows: RowCache[Hashable] = RowCache(self._row)

    def after(self, tokens: Sequence[int]) -> np.ndarray:
        """Return which tokens may follow a valid sequence, (V,) booleans that the caller leaves unchanged."""
        return self._rows[self._memory(tuple(tokens))]

    def _row(self, end: tuple[int, ...]) -> np.ndarray:
        tokens = range(len(self._tokenizer.vocabulary))
        return np.array([is_valid(self._tokenizer, (*end, token)) for token in tokens])


def continuations_of(tokenizer: Any) -> Continuations:
    """Return the fastest exact rows for a tokenizer.

    Adjacent pairs decide for BPE (its pieces, if any, depending on neighbouring symbols alone), a dynamic programme
    over the last piece for unigram; maximum prefix encoding and everything else is re-encoded.
    """
    if isinstance(tokenizer, BytePairTokenizer):
        return MergeContinuations.of(tokenizer)
    if isinstance(tokenizer, UnigramTokenizer):
        return UnigramContinuations.of(tokenizer)
    return ReencodedContinuations(tokenizer)
