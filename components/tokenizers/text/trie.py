"""A vocabulary arranged by first symbols: the longest token at a place, and the tokens that begin with a string.

Letters: V tokens, A symbols, B strings, N symbols of a string. A symbol is one character of `str`; a tokenizer of
bytes passes its bytes through latin-1, one symbol per byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.errors import TesseraError


class VocabularyError(TesseraError):
    """A vocabulary that cannot spell its own tokens."""


class UnknownSymbol(TesseraError):
    """A text holds a symbol that no token spells."""


class VocabularyTrie:
    """The prefix tree of a vocabulary, as arrays, so that many strings walk it at once.

    Node 0 is the empty string. The tokens below a node are one contiguous range of `order`.

    Attributes:
        vocabulary: Token strings by id.
        alphabet: The A symbols in ascending order.
        longest: Length of the longest token, in symbols.
        child: Node after one more symbol, (nodes, A) int32, -1 where no token goes on so.
        token: Id of the token that a node spells, (nodes,) int32, -1 for none.
        low, high: Tokens below a node are `order[low:high]`, (nodes,) int32.
        order: Token ids in lexicographic order, (V,).
        rank: Place of each token in `order`, (V,).

    Raises:
        VocabularyError: A token is empty or doubled, or one of its symbols is no token.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = tuple(vocabulary)
        _check(self.vocabulary)
        self.alphabet = "".join(sorted({symbol for token in self.vocabulary for symbol in token}))
        self.longest = max(map(len, self.vocabulary))
        code = {symbol: place for place, symbol in enumerate(self.alphabet)}
        self._points = np.array([ord(symbol) for symbol in self.alphabet], np.uint32)
        self.order = np.array(sorted(range(len(self.vocabulary)), key=self.vocabulary.__getitem__))
        self.rank = np.argsort(self.order)

        nodes = {"": 0}
        child, token, low, high = [[-1] * len(self.alphabet)], [-1], [0], [0]
        for rank, identity in enumerate(self.order.tolist()):
            text, node = self.vocabulary[identity], 0
            high[0] = rank + 1
            for end in range(1, len(text) + 1):
                if text[:end] not in nodes:
                    nodes[text[:end]] = len(child)
                    child[node][code[text[end - 1]]] = len(child)
                    child.append([-1] * len(self.alphabet))
                    token.append(-1)
                    low.append(rank)
                    high.append(rank)
                node = nodes[text[:end]]
                high[node] = rank + 1
            token[node] = identity
        self._nodes = nodes
        self.child, self.token = np.array(child, np.int32), np.array(token, np.int32)
        self.low, self.high = np.array(low, np.int32), np.array(high, np.int32)

    def codes(self, text: str) -> np.ndarray:
        """Return the index of every symbol of a text in `alphabet`, (N,) int64.

        Raises:
            UnknownSymbol: A symbol is not in the alphabet.
        """
        return self.code_matrix([text])[0][0]

    def code_matrix(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the symbol indices of many texts, padded with 0, (B, N) int64, and their lengths, (B,).

        Raises:
            UnknownSymbol: A symbol is not in the alphabet.
        """
        lengths = np.array([len(text) for text in texts], np.int64)
        width = int(lengths.max(initial=0))
        if width == 0:
            return np.zeros((len(texts), 0), np.int64), lengths
        points = np.array(texts, f"<U{width}").view(np.uint32).reshape(len(texts), width)
        inside = np.arange(width) < lengths[:, None]
        codes = np.searchsorted(self._points, points).clip(max=len(self._points) - 1)
        if (strange := (self._points[codes] != points) & inside).any():
            symbols = sorted({chr(point) for point in points[strange]})
            raise UnknownSymbol(
                f"{symbols[:8]} in the text but in no token. The vocabulary spells {self.alphabet!r}; train the "
                "tokenizer with every symbol that occurs, or clean the text."
            )
        return np.where(inside, codes, 0), lengths

    def node(self, text: str) -> int:
        """Return the node of a string, -1 where no token begins with it."""
        return self._nodes.get(text, -1)

    def below(self, text: str) -> np.ndarray:
        """Return the ids of the tokens that begin with `text`, itself included, in lexicographic order."""
        node = self.node(text)
        return self.order[self.low[node] : self.high[node]] if node >= 0 else self.order[:0]

    def walk(self, codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the node that each substring reaches.

        Args:
            codes: Symbol indices, (B, N).
            starts: First symbol of each substring, (B,).
            ends: Place after its last symbol, (B,).

        Returns:
            Nodes, (B,), -1 where no token begins with the substring.
        """
        node = np.where(ends - starts <= self.longest, 0, -1)
        rows = np.arange(len(codes))
        for depth in range(self.longest):
            inside = (starts + depth < ends) & (node >= 0)
            symbol = codes[rows[inside], starts[inside] + depth]
            node[inside] = self.child[node[inside], symbol]
        return node


def _check(vocabulary: tuple[str, ...]) -> None:
    if not vocabulary or "" in vocabulary or len(set(vocabulary)) != len(vocabulary):
        raise VocabularyError(f"Vocabulary {vocabulary[:12]}: expected distinct, non-empty tokens, at least one.")
    tokens = set(vocabulary)
    if missing := sorted({symbol for token in vocabulary for symbol in token} - tokens):
        raise VocabularyError(
            f"The symbols {missing[:12]} occur inside tokens but are no tokens themselves; add them, so that every "
            "text has an encoding."
        )
