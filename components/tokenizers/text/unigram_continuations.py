"""Which tokens may follow a sequence of the unigram tokenizer, for all of them by one dynamic programme.

The encoding of a piece is its best segmentation, the path of back pointers from its end (Viterbi). Behind the text x of
the last piece so far, a token t may follow iff the back pointer at the end of x t is t itself, beginning at the end of
x. Of the three kinds of tokens that can end at a place s behind x,

    crossing    u = a s, a an end of x:              best(x without a) + ln p(u)
    root        u = s:                               best(x) + ln p(u)
    inner       u a proper end of s:                 best(x, s without u) + ln p(u),

the root must beat the crossing ones and at least equal the inner ones, for among equals the longer last token is taken.
All places that begin a token form a tree, filled depth by depth. Sums run in the library's order, so equal means equal.

Behind the end of a piece a token is valid iff it may begin one.

Letters: V tokens, A symbols, L symbols of the longest token, P places (distinct beginnings of tokens), E edges.

Source: Kudo 2018, "Subword Regularization" (arXiv 1804.10959), section 3.2 (the segmentation); what may follow: ours.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.tokenizers.text.lexicographic import LexicographicVocabulary
from components.tokenizers.text.neighbours import piece_cuts
from components.tokenizers.text.row_cache import RowCache
from components.tokenizers.text.unigram import UnigramTokenizer


class UnigramContinuations:
    """Valid continuations of the unigram tokenizer, from its tokens' probabilities.

    Args:
        vocabulary: Token strings by id.
        scores: ln p of each token, (V,).
        cuts: Between which neighbouring symbols a new piece begins, (A, A) booleans in ascending order of the symbols;
            None without a pre-tokenizer.
    """

    def __init__(self, vocabulary: Sequence[str], scores: Sequence[float], cuts: np.ndarray | None = None) -> None:
        self._words = LexicographicVocabulary(vocabulary)
        self._scores = np.array(scores, np.float64)
        self._ids = {token: identity for identity, token in enumerate(self._words.vocabulary)}
        self._cuts = cuts
        self._first = np.array([self._words.code(token[0]) for token in self._words.vocabulary])
        beginnings = sorted({token[:end] for token in self._ids for end in range(len(token) + 1)}, key=len)
        place = {text: index for index, text in enumerate(beginnings)}
        self._own = np.array([place[token] for token in self._words.vocabulary])
        # [L + 1, V]: place of what is left of a token, in lexicographic order, without its first 0 .. L symbols.
        self._left = np.full((self._words.longest + 1, len(self._ids)), -1, np.int64)
        for rank, token in enumerate(self._words.order.tolist()):
            text = self._words.vocabulary[token]
            for cut in range(len(text)):
                self._left[cut, rank] = place.get(text[cut:], -1)
        self._levels = self._inner_edges(beginnings, place)
        self._rows: RowCache[str] = RowCache(self._row)
        self._places = len(beginnings)

    @classmethod
    def of(cls, tokenizer: UnigramTokenizer) -> UnigramContinuations:
        """Read the probabilities of a tokenizer, and try where its pre-tokenizer cuts.

        Raises:
            NotDecidedByNeighbours: Its pieces depend on more than neighbouring symbols.
        """
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save(path := Path(folder) / "tokenizer.json")
            scores = [score for _, score in json.loads(path.read_text())["model"]["vocab"]]
        alphabet = LexicographicVocabulary(tokenizer.vocabulary).alphabet
        return cls(tokenizer.vocabulary, scores, piece_cuts(tokenizer, alphabet) if tokenizer.pieces else None)

    def after(self, tokens: Sequence[int]) -> np.ndarray:
        """Return which tokens may follow a valid sequence, (V,) booleans that the caller leaves unchanged."""
        return self._rows[self._last_piece(tokens)]

    def _last_piece(self, tokens: Sequence[int]) -> str:
        """Return the text of the last piece: tokens from the end, until there is a cut between two of them."""
        start, vocabulary = len(tokens), self._words.vocabulary
        while start > 0 and not (start < len(tokens) and self._cut(tokens[start - 1], tokens[start])):
            start -= 1
        return "".join(vocabulary[token] for token in tokens[start:])

    def _cut(self, left: int, right: int) -> bool:
        if self._cuts is None:
            return False
        return bool(self._cuts[self._words.code(self._words.vocabulary[left][-1]), self._first[right]])

    def _inner_edges(self, beginnings: list[str], place: dict[str, int]) -> list[tuple[np.ndarray, ...]]:
        """Return, for each depth from 2 on, edges between places by a token: from, to, ln p, each (E,)."""
        levels: list[list[tuple[int, int, float]]] = [[] for _ in range(self._words.longest + 1)]
        for text in beginnings:
            for cut in range(1, len(text)):
                if (token := self._ids.get(text[cut:])) is not None:
                    levels[len(text)].append((place[text[:cut]], place[text], self._scores[token]))
        return [tuple(map(np.array, zip(*level, strict=True))) for level in levels if level]

    def _row(self, piece: str) -> np.ndarray:
        best = self._best(piece)
        root = np.full(self._places, -math.inf)
        root[self._own] = best[-1] + self._scores
        crossing = np.full(self._places, -math.inf)
        for cut in range(max(0, len(piece) - self._words.longest + 1), len(piece)):
            low, high = self._words.longer(*self._words.below(piece[cut:]), len(piece) - cut)
            to = self._left[len(piece) - cut, low:high]
            value = best[cut] + self._scores[self._words.order[low:high]]
            # No two of one cut lead to the same place.
            crossing[to[to >= 0]] = np.maximum(crossing[to[to >= 0]], value[to >= 0])
        total = np.maximum(root, crossing)
        inner = np.full(self._places, -math.inf)
        for source, to, score in self._levels:
            np.maximum.at(inner, to, total[source] + score)
            total[to] = np.maximum(total[to], inner[to])
        row = ((root > crossing) & (root >= inner))[self._own]
        if self._cuts is not None and piece:
            ends = self._cuts[self._words.code(piece[-1])][self._first]
            row = np.where(ends, self._rows[""], row)
        return row

    def _best(self, piece: str) -> list[float]:
        """Return the score of the best segmentation of the first 0 .. N symbols of a piece."""
        best = [0.0] + [-math.inf] * len(piece)
        for start in range(len(piece)):
            for end in range(start + 1, min(len(piece), start + self._words.longest) + 1):
                token = self._ids.get(piece[start:end])
                if token is not None:
                    best[end] = max(best[end], best[start] + self._scores[token])
        return best
