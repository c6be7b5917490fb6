"""Learning the tokens of the unigram language model: expectation-maximisation over all segmentations, and pruning.

Everything is ordered by code points and counted in arrays, so the same texts give the same tokens in every process.

Letters: N symbols of all distinct pieces in a row, L longest token, S strings considered, K strings kept as tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma

from components.errors import TesseraError

LONGEST_TOKEN = 16
_SEEDS = 500_000
_ITERATIONS = 2
_SHRINK = 0.75
_STRETCH = 512
_LEAST_COUNT = 0.5


class UnigramError(TesseraError):
    """A unigram language model cannot be learned from these texts with these settings."""


def learn(
    pieces: Mapping[str, int], vocabulary_size: int, *, alphabet: str = "", longest: int = LONGEST_TOKEN
) -> list[tuple[str, float]]:
    """Learn a vocabulary of the unigram language model.

    Seeds are the repeated strings that some symbol on their right does not always follow. Then, again and again:
    two rounds of expectation-maximisation, and the strings that the likelihood misses least are dropped, down to
    3/4 each time. With c(t) the expected count of token t, dropping it costs about

        c(t) (ln p(t) - max over segmentations of t into other tokens of sum_i ln p(t_i)).

    The M step is `ln p(t) = psi(c(t)) - psi(sum c)`, psi the digamma function: the mean-field update under a sparse
    Dirichlet prior, which drives rare tokens out.

    Args:
        pieces: Distinct pieces and how often each occurs. Pieces above 512 symbols are learned from in stretches.
        vocabulary_size: Tokens wanted, symbols included.
        alphabet: Further symbols.
        longest: L.

    Returns:
        Tokens with ln p: symbols in ascending order, then the others by falling probability.

    Raises:
        UnigramError: No room for the symbols, or no symbols.

    Source: Kudo 2018, section 3.2; the M step as in the SentencePiece software.
    """
    symbols = sorted({symbol for piece in pieces for symbol in piece} | set(alphabet))
    if not symbols or len(symbols) > vocabulary_size:
        raise UnigramError(
            f"vocabulary_size is {vocabulary_size}, but there are {len(symbols)} symbols; expected at least one symbol "
            "and room for all."
        )
    stretches = {}
    for piece, count in sorted(pieces.items()):
        for start in range(0, len(piece), _STRETCH):
            part = piece[start : start + _STRETCH]
            stretches[part] = stretches.get(part, 0) + count
    if not stretches:
        return [(symbol, -float(np.log(len(symbols)))) for symbol in symbols]
    strings = _Strings.of(stretches, symbols, longest)
    kept = strings.seeds(max(_SEEDS, vocabulary_size))
    start = strings.count[kept] * strings.length[kept]
    scores = np.log(np.maximum(start, _LEAST_COUNT) / start.sum())
    lattice = _Lattice(strings, kept, list(stretches.values()))
    while True:
        for _ in range(_ITERATIONS):
            expected = lattice.expected_counts(scores)
            counts = np.maximum(expected, _LEAST_COUNT)
            scores = digamma(counts) - digamma(counts.sum())
        if len(kept) <= vocabulary_size:
            break
        loss = expected * (scores - strings.alternatives(kept, scores))
        loss[: len(symbols)] = np.inf
        wanted = max(vocabulary_size, int(_SHRINK * len(kept)))
        stay = np.zeros(len(kept), bool)
        # A stable sort: among equal losses the earlier string stays.
        stay[np.argsort(-loss, kind="stable")[:wanted]] = True
        kept, scores = kept[stay], scores[stay]
        lattice.prune(stay)
    scores -= np.log(np.exp(scores).sum())
    texts = [strings.text(string, symbols) for string in kept]
    rest = sorted(range(len(symbols), len(kept)), key=lambda index: (-scores[index], texts[index]))
    return [(texts[index], float(scores[index])) for index in [*range(len(symbols)), *rest]]


@dataclass
class _Strings:
    """Every string of at most L symbols that occurs at least twice inside pieces, and every symbol.

    Attributes:
        codes: Symbol index at each place, (N,).
        room: Symbols from each place to the end of its piece, (N,).
        table: String of each length at each place, (L, N) int32, -1 where it occurs once or leaves the piece.
        count: Occurrences, (S,) float64.
        length: Symbols, (S,).
        place: Where a string occurs first, (S,); -1 for a symbol that never does.
        firm: Whether no one symbol follows every occurrence, (S,).
    """

    codes: np.ndarray
    room: np.ndarray
    table: np.ndarray
    count: np.ndarray
    length: np.ndarray
    place: np.ndarray
    firm: np.ndarray

    @classmethod
    def of(cls, pieces: Mapping[str, int], symbols: list[str], longest: int) -> _Strings:
        lengths = np.array([len(piece) for piece in pieces])
        text = "".join(pieces)
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        codes = np.searchsorted(np.array([ord(symbol) for symbol in symbols], np.uint32), points)
        room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(text))
        weight = np.repeat(np.array(list(pieces.values()), np.float64), lengths)

        table = np.full((longest, len(text)), -1, np.int32)
        table[0] = codes
        counts = [np.bincount(codes, weight, minlength=len(symbols))]
        found, first = np.unique(codes, return_index=True)
        places = [np.full(len(symbols), -1)]
        places[0][found] = first
        firm, known = [np.ones(len(symbols), bool)], len(symbols)
        for length in range(2, longest + 1):
            before = table[length - 2]
            where = np.flatnonzero((before >= 0) & (room >= length))
            if not len(where):
                table = table[: length - 1]
                break
            keys = before[where].astype(np.int64) * len(symbols) + codes[where + length - 1]
            _, first, string = np.unique(keys, return_index=True, return_inverse=True)
            count = np.bincount(string, weight[where])
            parent = before[where[first]] - (known - len(counts[-1]))
            firm[-1][parent[count == counts[-1][parent]]] = False
            repeated = count >= 2
            number = np.where(repeated, known + np.cumsum(repeated) - 1, -1).astype(np.int32)
            table[length - 1, where] = number[string]
            counts.append(count[repeated])
            places.append(where[first[repeated]])
            firm.append(np.ones(repeated.sum(), bool))
            known += int(repeated.sum())
        length = np.repeat(np.arange(1, len(counts) + 1), [len(part) for part in counts])
        return cls(codes, room, table, np.concatenate(counts), length, np.concatenate(places), np.concatenate(firm))

    def seeds(self, most: int) -> np.ndarray:
        """Return the strings to begin with: all symbols, then firm strings of the greatest count x length."""
        longer = np.flatnonzero((self.length > 1) & self.firm)
        order = np.argsort(-self.count[longer] * self.length[longer], kind="stable")
        symbols = np.flatnonzero(self.length == 1)
        return np.concatenate([symbols, np.sort(longer[order[: most - len(symbols)]])])

    def alternatives(self, kept: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the best score of each kept string from other tokens, (K,); its own score for symbols."""
        score = np.full(len(self.count), -np.inf)
        score[kept] = scores
        result = scores.copy()
        for length in range(2, len(self.table) + 1):
            rows = np.flatnonzero(self.length[kept] == length)
            place = self.place[kept[rows]]
            best = np.full((length + 1, len(rows)), -np.inf)
            best[0] = 0
            for end in range(1, length + 1):
                for size in range(1, min(end, length - 1) + 1):
                    candidate = best[end - size] + score[self.table[size - 1, place + end - size]]
                    np.maximum(best[end], candidate, out=best[end])
            result[rows] = best[length]
        return result

    def text(self, string: int, symbols: list[str]) -> str:
        """Spell a string."""
        if self.place[string] < 0:
            return symbols[string]
        place = self.place[string]
        return "".join(symbols[code] for code in self.codes[place : place + self.length[string]])


class _Lattice:
    """All segmentations of all pieces at once, depth by depth.

    A node is a place between symbols; a piece of n symbols has n + 1. An edge is a token between two nodes.
    """

    def __init__(self, strings: _Strings, kept: np.ndarray, weights: list[int]) -> None:
        token_of = np.full(len(strings.count), -1, np.int64)
        token_of[kept] = np.arange(len(kept))
        ends = strings.room == 1
        piece = np.cumsum(ends) - ends  # of each place
        first = np.flatnonzero(np.append(True, ends[:-1]))
        depth = np.arange(len(strings.codes)) - first[piece]
        tokens, sources, sizes = [], [], []
        for size in range(1, len(strings.table) + 1):
            found = strings.table[size - 1]
            here = np.flatnonzero(found >= 0)
            token = token_of[found[here]]
            tokens.append(token[token >= 0])
            sources.append(here[token >= 0])
            sizes.append(np.full(len(tokens[-1]), size))
        place, size = np.concatenate(sources), np.concatenate(sizes)
        self._nodes = len(strings.codes) + len(first)
        self._first, self._last = first + np.arange(len(first)), np.flatnonzero(ends) + 1 + np.arange(len(first))
        self._weight = np.array(weights, np.float64)
        self._token = np.concatenate(tokens)
        self._piece = piece[place]
        self._source = place + self._piece
        self._target = self._source + size
        self._depth = depth[place], depth[place] + size
        self._tokens = len(kept)
        self._arrange()

    def prune(self, stay: np.ndarray) -> None:
        """Keep the tokens marked, (K,) booleans, and number them anew."""
        number = np.cumsum(stay) - 1
        edges = stay[self._token]
        self._token = number[self._token[edges]]
        self._piece, self._source, self._target = self._piece[edges], self._source[edges], self._target[edges]
        self._depth = self._depth[0][edges], self._depth[1][edges]
        self._tokens = int(stay.sum())
        self._arrange()

    def expected_counts(self, scores: np.ndarray) -> np.ndarray:
        """Return the expected number of times that each token is used, (K,): the E step, forward and backward."""
        score = scores[self._token]
        alpha = self._sweep(self._forward, self._first, self._source, score)
        beta = self._sweep(self._backward, self._last, self._target, score)
        posterior = np.exp(alpha[self._source] + score + beta[self._target] - alpha[self._last][self._piece])
        return np.bincount(self._token, posterior * self._weight[self._piece], minlength=self._tokens)

    def _sweep(self, plan: list[tuple], begin: np.ndarray, earlier: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Return ln of the summed probability of all ways between `begin` and each node, (nodes,)."""
        total = np.full(self._nodes, -np.inf)
        total[begin] = 0
        for edges, starts, group, nodes in plan:
            ways = total[earlier[edges]] + score[edges]
            best = np.maximum.reduceat(ways, starts)
            total[nodes] = best + np.log(np.add.reduceat(np.exp(ways - best[group]), starts))
        return total

    def _arrange(self) -> None:
        self._forward = _plan(self._depth[1], self._target)
        # Backwards a node waits for all that start behind it: from the greatest depth down.
        self._backward = _plan(-self._depth[0], self._source)


def _plan(depth: np.ndarray, node: np.ndarray) -> list[tuple]:
    """Group edges by depth, and within a depth by node: (edges, first of each node, node of each edge, nodes)."""
    order = np.lexsort((node, depth))
    plan = []
    for edges in np.split(order, np.flatnonzero(np.diff(depth[order])) + 1):
        new = np.append(True, np.diff(node[edges]) > 0)
        starts = np.flatnonzero(new)
        plan.append((edges, starts, np.cumsum(new) - 1, node[edges[starts]]))
    return plan
