"""A vocabulary in lexicographic order: tokens that begin with a string are neighbours, so a sum over them is a slice.

The prefix tree without its nodes. A node is the range of the tokens below it, and a step down the tree is a search in
one sorted column. That needs V x L small integers where a tree's table of children needs nodes x A, so a vocabulary of
tens of thousands of byte tokens is built in a fraction of a second.

Letters: V tokens, A symbols, L symbols of the longest token. A symbol is one character of `str`; a tokenizer of bytes
passes its bytes through latin-1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.tokenizers.text.trie import UnknownSymbol, VocabularyError

ENDED = -1
"""What stands in `symbols` behind the last symbol of a token: smaller than every symbol, so that shorter tokens come
first."""


class LexicographicVocabulary:
    """Token strings in lexicographic order, as columns of symbols.

    Attributes:
        vocabulary: Token strings by id.
        alphabet: The A symbols in ascending order.
        longest: L.
        order: Token ids in lexicographic order, (V,) int64.
        symbols: Index in `alphabet` of the symbol behind the first d symbols of the r-th token in this order, ENDED
            where it has no more, (L + 1, V) int16.

    Raises:
        VocabularyError: A token is empty or doubled.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = tuple(vocabulary)
        if not self.vocabulary or "" in self.vocabulary or len(set(self.vocabulary)) != len(self.vocabulary):
            raise VocabularyError(f"Vocabulary {self.vocabulary[:12]}: expected distinct, non-empty tokens.")
        points = np.frombuffer("".join(self.vocabulary).encode("utf-32-le"), np.uint32)
        distinct, codes = np.unique(points, return_inverse=True)
        self.alphabet = "".join(map(chr, distinct.tolist()))
        self._code = {symbol: code for code, symbol in enumerate(self.alphabet)}
        lengths = np.array([len(token) for token in self.vocabulary])
        self.longest = int(lengths.max())
        symbols = np.full((self.longest + 1, len(lengths)), ENDED, np.int16)
        inside = np.arange(self.longest + 1)[:, None] < lengths
        symbols.T[inside.T] = codes
        self.order = np.lexsort(symbols[::-1])
        self.symbols = np.ascontiguousarray(symbols[:, self.order])

    def code(self, symbol: str) -> int:
        """Return the index of a symbol in `alphabet`.

        Raises:
            UnknownSymbol: No token holds it.
        """
        if symbol not in self._code:
            raise UnknownSymbol(f"{symbol!r} is in no token; the vocabulary spells {self.alphabet!r}.")
        return self._code[symbol]

    def narrow(self, low: int, high: int, depth: int, code: int) -> tuple[int, int]:
        """Narrow a range of tokens that share their first `depth` symbols to those that go on with one more.

        Args:
            low: First token of the range, by place in `order`.
            high: Place behind the last one.
            depth: Symbols that they share.
            code: Next symbol.

        Returns:
            The narrower range; empty where no token goes on so.
        """
        column = self.symbols[depth, low:high]
        return low + int(column.searchsorted(code)), low + int(column.searchsorted(code, "right"))

    def below(self, text: str) -> tuple[int, int]:
        """Return the range of the tokens that begin with a string, itself included."""
        low, high = 0, len(self.vocabulary)
        if len(text) > self.longest:
            return low, low
        for depth, symbol in enumerate(text):
            if low == high:
                break
            low, high = self.narrow(low, high, depth, self.code(symbol))
        return low, high

    def longer(self, low: int, high: int, depth: int) -> tuple[int, int]:
        """Leave the token that is no longer than `depth` out of a range that shares `depth` symbols."""
        return low + int(low < high and self.symbols[depth, low] == ENDED), high

    def by_symbol(self, weights: np.ndarray, low: int, high: int, depth: int) -> np.ndarray:
        """Sum the weights of a range of tokens by their symbol behind the first `depth`.

        Args:
            weights: Weight of every token in lexicographic order, (V,) float64.
            low: First token of the range; every one in it has more than `depth` symbols.
            high: Place behind the last one.
            depth: Symbols to skip.

        Returns:
            Sums in the order of `alphabet`, (A,) float64.
        """
        return np.bincount(self.symbols[depth, low:high], weights[low:high], len(self.alphabet))
