"""Ways to cut a text into tokens of one dictionary: the longest match, and the fewest tokens.

The third, merge order, belongs to byte-pair encoding itself (components.tokenizers.text.bpe). All take a text as symbol
indices of the dictionary's trie and work on arrays, so that millions of symbols take a second or less.

Letters: N symbols of a text, L longest token, T tokens, B lanes (stretches of the text that are worked on at once).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.tokenizers.text.trie import VocabularyTrie

_BLOCK = 1 << 17
_LANE = 2048
_OVERLAP = 256
_TOGETHER = 1 << 25
_COST = 1 << 20
_FAR = np.int64(1 << 60)


def longest_matches(trie: VocabularyTrie, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the longest token that begins at each place, its id and its length, two times (N,) int32."""
    tokens, lengths = np.empty(len(codes), np.int32), np.empty(len(codes), np.int32)
    symbols, child = len(trie.alphabet), trie.child.ravel()
    for begin in range(0, len(codes), _BLOCK):
        here = codes[begin : begin + _BLOCK + trie.longest - 1]
        count = min(_BLOCK, len(codes) - begin)
        places, node = np.arange(count), np.zeros(count, np.int64)
        best, best_length = np.empty(count, np.int32), np.empty(count, np.int32)
        for depth in range(trie.longest):
            if len(here) - depth < count:
                inside = places + depth < len(here)
                places, node = places[inside], node[inside]
            node = child[node * symbols + here[places + depth]]
            going = node >= 0
            places, node = places[going], node[going].astype(np.int64)
            if not len(places):
                break
            token = trie.token[node]
            spelled = token >= 0
            best[places[spelled]] = token[spelled]
            best_length[places[spelled]] = depth + 1
        tokens[begin : begin + count], lengths[begin : begin + count] = best, best_length
    return tokens, lengths


def greedy(trie: VocabularyTrie, codes: np.ndarray) -> np.ndarray:
    """Encode from left to right, always by the longest token that begins the rest (maximum prefix encoding).

    Args:
        trie: The dictionary.
        codes: Symbol indices, (N,).

    Returns:
        Token ids, (T,) int32.
    """
    tokens, lengths = longest_matches(trie, codes)
    return tokens[_path(lengths)]


def minimal(trie: VocabularyTrie, codes: np.ndarray) -> np.ndarray:
    """Encode in as few tokens as there can be; where several ways are as short, each token as long as possible.

        c(N) = 0,   c(i) = 1 + min over tokens t that begin at i of c(i + |t|)

    Places depend on the L places behind them, and only on how their costs differ. So the text is cut into lanes that
    are worked on at once from right to left, each beginning well behind its end with costs made up. A lane is right
    as soon as the costs at its end differ from each other as those at the beginning of the next lane do; where they
    do not, the lane is done again from farther behind.

    Args:
        trie: The dictionary.
        codes: Symbol indices, (N,).

    Returns:
        Token ids, (T,) int32.
    """
    if not len(codes):
        return np.zeros(0, np.int32)
    lanes = _Lanes(trie, codes)
    overlap, wrong = _OVERLAP, np.arange(lanes.count)
    while len(wrong):
        lanes.work(wrong, overlap)
        wrong, overlap = lanes.wrong(), 2 * overlap
    starts = _path(lanes.chosen.ravel()[: len(codes)])
    lengths = np.diff(starts, append=len(codes))
    node = np.zeros(len(starts), np.int64)
    for depth in range(int(lengths.max())):
        inside = np.flatnonzero(lengths > depth)
        node[inside] = trie.child[node[inside], codes[starts[inside] + depth]]
    return trie.token[node]


class _Lanes:
    """Shortest paths over the text, lane by lane.

    Attributes:
        count: B.
        chosen: Length of the token that a shortest path takes at each place, (B, S) int32, S places of a lane.
    """

    def __init__(self, trie: VocabularyTrie, codes: np.ndarray) -> None:
        self._trie, self._codes, self._longest = trie, codes, trie.longest
        self.lane = min(_LANE, len(codes))
        self.count = -(-len(codes) // self.lane)
        self.chosen = np.ones((self.count, self.lane), np.int32)
        self._head = np.empty((self.count, self._longest), np.int64)
        self._tail = np.empty((self.count, self._longest), np.int64)

    def work(self, lanes: np.ndarray, overlap: int) -> None:
        """Work out some lanes, beginning `overlap` places behind their ends."""
        reach = self.lane + overlap
        together = max(1, _TOGETHER // (reach * self._longest))
        for first in range(0, len(lanes), together):
            self._work(lanes[first : first + together], reach)

    def _work(self, lanes: np.ndarray, reach: int) -> None:
        starts = lanes * self.lane
        ends = np.minimum(len(self._codes) - starts, reach)
        spelled = self._spelled(starts, ends, reach)
        # Cost and length in one number, the longer token being the lesser of two equal costs.
        cost = np.full((reach + self._longest, len(lanes)), _FAR)
        cost[ends, np.arange(len(lanes))] = 0
        taken = np.zeros((reach, len(lanes)), np.int64)
        length, all_inside = np.arange(1, self._longest + 1)[:, None], int(ends.min())
        for place in range(int(ends.max()) - 1, -1, -1):
            ways = np.where(spelled[place], cost[place + 1 : place + 1 + self._longest] - length, _FAR)
            best = np.minimum.reduce(ways, axis=0, out=taken[place])
            after = ((best + _COST - 1) & -_COST) + _COST
            if place < all_inside:
                cost[place] = after
            else:
                np.copyto(cost[place], after, where=place < ends)
        self.chosen[lanes] = (-taken[: self.lane] & (_COST - 1)).T
        self._head[lanes] = cost[: self._longest].T
        self._tail[lanes] = cost[self.lane : self.lane + self._longest].T

    def _spelled(self, starts: np.ndarray, ends: np.ndarray, reach: int) -> np.ndarray:
        """Return whether a token of each length begins at each place of each lane, (reach, L, B) booleans."""
        spelled = np.zeros((reach, self._longest, len(starts)), bool)
        place, lane = np.nonzero(np.arange(reach)[:, None] < ends)
        node, child, symbols = np.zeros(len(place), np.int64), self._trie.child.ravel(), len(self._trie.alphabet)
        for depth in range(self._longest):
            inside = place + depth < ends[lane]
            place, lane, node = place[inside], lane[inside], node[inside]
            node = child[node * symbols + self._codes[starts[lane] + place + depth]].astype(np.int64)
            going = node >= 0
            place, lane, node = place[going], lane[going], node[going]
            token = self._trie.token[node] >= 0
            spelled[place[token], depth, lane[token]] = True
        return spelled

    def wrong(self) -> np.ndarray:
        """Return the lanes whose costs at the end do not differ as those at the beginning of the next lane do."""
        difference = self._tail[:-1] - self._head[1:]
        inside = np.arange(1, self.count)[:, None] * self.lane + np.arange(self._longest) <= len(self._codes)
        return np.flatnonzero(((difference != difference[:, :1]) & inside).any(1))


def _path(lengths: np.ndarray) -> np.ndarray:
    """Follow lengths from place 0 to the end of the text; return the places on the way, (T,)."""
    step, places, place = lengths.tolist(), [], 0
    while place < len(step):
        places.append(place)
        place += step[place]
    return np.array(places, np.int64)


class MinimalTokenizer:
    """A dictionary encoded in as few tokens as there can be.

    Attributes:
        vocabulary: Token strings by id; every symbol is a token.
        trie: The vocabulary by first symbols.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.trie = VocabularyTrie(vocabulary)
        self.vocabulary = self.trie.vocabulary

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text.

        Raises:
            UnknownSymbol: A symbol of the text is no token.
        """
        return minimal(self.trie, self.trie.codes(text)).tolist()

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text that the tokens spell."""
        return "".join(self.vocabulary[token] for token in tokens)

    def certain_tokens(self, text: str) -> int:
        """Return 0: what follows may move every boundary (AAAA... in tokens AA and A is cut by its parity)."""
        return 0

    def validity_memory(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return all tokens: only the whole text decides what is shortest."""
        return tokens

    def save(self, path: Path) -> None:
        """Write the vocabulary as JSON."""
        path.write_text(json.dumps({"kind": "minimal", "vocabulary": self.vocabulary}, ensure_ascii=False) + "\n")


def load(path: Path) -> MinimalTokenizer:
    """Read a tokenizer that `save` wrote."""
    return MinimalTokenizer(json.loads(path.read_text())["vocabulary"])
