"""Adjacent pairs of tokens in a text, counted while pairs are merged into new tokens.

What byte-pair encoding and WordPiece learn from: the text as a linked list of tokens, and for every pair of adjacent
tokens how often it occurs and where. A merge touches only the places of its pair, all of them at once.

Letters: N symbols of all distinct pieces in a row, P pairs seen so far, V tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

_SHIFT = 32


class PairIndex:
    """The tokens of a text and its pairs of neighbours.

    Attributes:
        tokens: Token at each place where one begins, -1 elsewhere, (N,) int64.
        token_counts: Occurrences of each token, (V,) int64; grows as tokens are made.

    Args:
        tokens: Token of every symbol of the text, (N,) int64.
        lengths: Length of each piece in turn; no pair reaches from one piece into another.
        weights: How often each piece occurs.
        size: V at the beginning.
    """

    def __init__(self, tokens: np.ndarray, lengths: np.ndarray, weights: np.ndarray, size: int) -> None:
        self._size = len(tokens)
        self.tokens = tokens.astype(np.int64)
        self._weight = np.repeat(weights, lengths)
        self._next, self._previous = np.arange(1, self._size + 1), np.arange(-1, self._size - 1)
        ends = np.cumsum(lengths)
        self._next[ends - 1] = self._size
        self._previous[ends - lengths] = -1
        self.token_counts = np.bincount(self.tokens, self._weight, minlength=size).astype(np.int64)

        self._rows: dict[int, int] = {}
        self._places: list[list[np.ndarray]] = []
        self._keys, self._counts = np.zeros(1024, np.int64), np.zeros(1024, np.int64)
        first = np.flatnonzero(self._next < self._size)
        self._add(self._key(self.tokens[first], self.tokens[self._next[first]]), first)

    @classmethod
    def of_pieces(cls, pieces: Mapping[str, int], symbols: Sequence[str]) -> PairIndex:
        """Index distinct pieces, each counted as often as it occurs; symbol i begins as token i."""
        pieces = {piece: count for piece, count in pieces.items() if piece}
        lengths, weights = (np.array(list(values), np.int64) for values in (map(len, pieces), pieces.values()))
        return cls(_places_of("".join(pieces), symbols), lengths, weights, len(symbols))

    @classmethod
    def of_chunks(cls, text: str, length: int, symbols: Sequence[str]) -> PairIndex:
        """Index a text cut into chunks of one length; what is left at its end stays out."""
        count = len(text) // length
        lengths = np.full(count, length)
        return cls(_places_of(text[: count * length], symbols), lengths, np.ones(count, np.int64), len(symbols))

    @property
    def counts(self) -> np.ndarray:
        """Occurrences of each pair seen so far, (P,) int64; overlapping ones (AAA has AA twice) count each."""
        return self._counts[: len(self._places)]

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Left and right token of each pair seen so far, two times (P,) int64."""
        keys = self._keys[: len(self._places)]
        return keys >> _SHIFT, keys & ((1 << _SHIFT) - 1)

    def lowest(self, rows: np.ndarray) -> tuple[int, int]:
        """Return, of some pairs, the one with the lowest ids, left before right."""
        key = int(self._keys[rows].min())
        return key >> _SHIFT, key & ((1 << _SHIFT) - 1)

    def merge(self, left: int, right: int, merged: int) -> int:
        """Replace the pair by the token `merged` at all its places, from left to right where they overlap.

        Args:
            left: Token.
            right: Token.
            merged: Token that both become, an old one or the next new id.

        Returns:
            How often the pair was replaced, pieces counted as often as they occur.
        """
        row = self._rows.get((left << _SHIFT) + right)
        places = self._valid_places(row, left, right)
        if left == right:
            places = _not_overlapping(places, self._next)
        if merged == len(self.token_counts):
            self.token_counts = np.append(self.token_counts, 0)
        if not len(places):
            return 0
        second = self._next[places]
        before, behind = self._previous[places], self._next[second]
        # Where one occurrence follows another, the pair between them is seen from both sides; it counts once.
        alone = before >= 0
        alone[1:] &= before[1:] != second[:-1]
        going = behind < self._size
        touched = np.concatenate([places, before[alone], second[going]])
        gone = np.concatenate(
            [
                np.full(len(places), (left << _SHIFT) + right),
                self._key(self.tokens[before[alone]], left),
                self._key(right, self.tokens[behind[going]]),
            ]
        )
        self._subtract(gone, self._weight[touched])

        self.tokens[places], self.tokens[second] = merged, -1
        self._next[places] = behind
        self._previous[behind[going]] = places[going]
        starts = np.concatenate([before[alone], places[going]])
        self._add(self._key(self.tokens[starts], self.tokens[self._next[starts]]), starts)
        replaced = int(self._weight[places].sum())
        for token, change in ((left, -replaced), (right, -replaced), (merged, replaced)):
            self.token_counts[token] += change
        return replaced

    def _valid_places(self, row: int | None, left: int, right: int) -> np.ndarray:
        # Places are noted when a pair appears there and never struck off, so some no longer hold it.
        parts = [] if row is None else self._places[row]
        if not parts:
            return np.zeros(0, np.int64)
        places = parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))
        self._places[row] = []
        places = places[self.tokens[places] == left]
        following = self._next[places]
        inside = following < self._size
        places, following = places[inside], following[inside]
        return places[self.tokens[following] == right]

    def _subtract(self, keys: np.ndarray, weights: np.ndarray) -> None:
        distinct, which = np.unique(keys, return_inverse=True)
        rows = [self._rows[key] for key in distinct.tolist()]
        self._counts[rows] -= np.bincount(which, weights).astype(np.int64)

    def _add(self, keys: np.ndarray, places: np.ndarray) -> None:
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], places[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        distinct, bounds = keys[starts].tolist(), [*starts.tolist(), len(keys)]
        known = len(self._places)
        rows = [self._rows.setdefault(key, len(self._rows)) for key in distinct]
        self._places += [[] for _ in range(len(self._rows) - known)]
        if len(self._rows) > len(self._counts):
            more = np.zeros(len(self._rows), np.int64)
            self._keys, self._counts = np.append(self._keys, more), np.append(self._counts, more)
        self._keys[rows] = distinct
        self._counts[rows] += np.add.reduceat(self._weight[places], starts)
        for index, row in enumerate(rows):
            self._places[row].append(places[bounds[index] : bounds[index + 1]])

    @staticmethod
    def _key(left: np.ndarray | int, right: np.ndarray | int) -> np.ndarray:
        return (left << _SHIFT) + right


def _not_overlapping(places: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Of occurrences of a doubled token keep the first, third, ... of every unbroken run."""
    new = np.append(True, following[places[:-1]] != places[1:])[: len(places)]
    index = np.arange(len(places))
    return places[(index - np.maximum.accumulate(np.where(new, index, 0))) % 2 == 0]


def _places_of(text: str, symbols: Sequence[str]) -> np.ndarray:
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return np.searchsorted(np.array([ord(symbol) for symbol in symbols], np.uint32), points)
