"""Maximum prefix encoding: always the longest token that begins the remaining text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.tokenizers.text.trie import VocabularyTrie


class MaxPrefixTokenizer:
    """Greedy left-to-right tokenizer over a given vocabulary (WordPiece's rule, without its word boundaries).

    `t_1 = argmax {|v| : v in V, v a prefix of x}`, then the same on what is left of x.

    Attributes:
        vocabulary: Token strings by id; every symbol is a token.
        trie: The vocabulary by first symbols.

    Source: Phan et al. 2024, "Understanding and Mitigating Tokenization Bias in Language Models"
    (arXiv 2406.16829), maximum prefix encoding.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.trie = VocabularyTrie(vocabulary)
        self.vocabulary = self.trie.vocabulary
        # Plain lists: reading one element of an array costs ten times as much.
        self._child, self._token = self.trie.child.tolist(), self.trie.token.tolist()

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text.

        Raises:
            UnknownSymbol: A symbol of the text is no token.
        """
        codes, child, token = self.trie.codes(text).tolist(), self._child, self._token
        tokens, start = [], 0
        while start < len(codes):
            node, place, best = 0, start, (-1, start)
            while place < len(codes) and (node := child[node][codes[place]]) >= 0:
                place += 1
                if token[node] >= 0:
                    best = (token[node], place)
            tokens.append(best[0])
            start = best[1]
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text that the tokens spell."""
        return "".join(self.vocabulary[token] for token in tokens)

    def first_tokens(self, texts: Sequence[str], count: int) -> np.ndarray:
        """Encode the beginnings of many texts at once.

        Args:
            texts: B texts.
            count: T, tokens wanted of each.

        Returns:
            Ids of the first T tokens of each `encode(text)`, (B, T) int64, -1 behind the end of the text.
        """
        codes, lengths = self.trie.code_matrix(texts)
        tokens = np.full((len(codes), count), -1, np.int64)
        start, rows = np.zeros(len(codes), np.int64), np.arange(len(codes))
        for index in range(count):
            rows = rows[start[rows] < lengths[rows]]
            begin, node = start[rows], np.zeros(len(rows), np.int64)
            for depth in range(self.trie.longest):
                node[begin + depth >= lengths[rows]] = -1
                going = node >= 0
                node[going] = self.trie.child[node[going], codes[rows[going], begin[going] + depth]]
                ended = (node >= 0) & (self.trie.token[node] >= 0)
                tokens[rows[ended], index] = self.trie.token[node[ended]]
                start[rows[ended]] = begin[ended] + depth + 1
        return tokens

    def certain_tokens(self, text: str) -> int:
        """Return how many leading tokens of `encode(text)` no continuation of the text can change.

        The cut behind a token is certain iff from no earlier token boundary b the rest of the text is a proper
        prefix of a vocabulary string, for then a longer token may begin at b and swallow the cut. So the last certain
        cut is the first boundary from which the rest of the text is one. That a token has no extension of its own is
        not enough: with V = {A, B, ABB} and the text AB, neither cut is certain.
        """
        start = 0
        for count, token in enumerate(tokens := self.encode(text)):
            below = self.trie.below(text[start:])
            if len(below) and (len(below) > 1 or self.trie.vocabulary[below[0]] != text[start:]):
                return count
            start += len(self.vocabulary[token])
        return len(tokens)

    def validity_memory(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return the last tokens that begin close enough to the end for a longer token to begin there instead."""
        reach, first = self.trie.longest - 1, len(tokens)
        while first > 0 and (reach := reach - len(self.vocabulary[tokens[first - 1]])) >= 0:
            first -= 1
        return tokens[first:]

    def save(self, path: Path) -> None:
        """Write the vocabulary as JSON."""
        path.write_text(json.dumps({"kind": "max_prefix", "vocabulary": self.vocabulary}, ensure_ascii=False) + "\n")


def load(path: Path) -> MaxPrefixTokenizer:
    """Read a tokenizer that `save` wrote."""
    return MaxPrefixTokenizer(json.loads(path.read_text())["vocabulary"])
