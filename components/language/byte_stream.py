"""Exact next-byte probabilities from a model of tokens, byte after byte.

A token model and its byte-level twin give whole texts the same probability, but a prompt of tokens also says that the
tokenizer ended here. The probability of a byte string is a sum over the token sequences that cover it,

    P(x_1..n) = sum over cover(x_1..n) of P(t_1..t_i),     |cover| <= tokens that begin with x_m+1..n, over m,

whose members are encode(x_1..m) and one token over the end. One of them, T0 = encode(x_1..n), ends exactly at n; the
others reach beyond. So for every byte c

    P(x c)   = sum of the reaching members whose byte n+1 is c  +  P(T0) sum over t beginning with c of P(t | T0),
    P(x end) = P(T0) P(end | T0),

and behind c the reaching members are those that went on with c, and T0 with every token that begins with c. Only the
new T0 has not been seen by the model: one call per byte, and at most L for the first cover.

Letters: V tokens, A symbols, L symbols of the longest token. Symbols are the characters of `str`; bytes pass as
latin-1. Sums over members share one power of e (log-sum-exp), since a text's probability underflows.

Source: Phan et al. 2024, "Exact Byte-Level Probabilities from Tokenized Language Models for FIM-Tasks and Model
Ensembles", the Byte-Token Representation Lemma and its sampling algorithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from components.language.token_rows import GrowingText, NothingFollows, TokenRow, TokenRows


class ByteModel(Protocol):
    """Whatever predicts the next byte of a text that it is told byte by byte.

    Attributes:
        alphabet: The A symbols in the order of its distributions.
    """

    alphabet: str

    def log_probabilities(self) -> np.ndarray:
        """Return ln P(next symbol | text), (A + 1,) float64; the last is the end of the text."""

    def append(self, symbol: str) -> None:
        """Take one more symbol of the text."""


@dataclass(frozen=True)
class Member:
    """A token sequence of a cover.

    Attributes:
        tokens: The sequence behind the last sure boundary.
        log_probability: ln P(sequence), as `ByteStream.log_mass` counts it.
    """

    tokens: tuple[int, ...]
    log_probability: float


@dataclass(frozen=True)
class _Known:
    """An encoding of a beginning of the text that the model was asked behind."""

    log_weight: float
    row: TokenRow


@dataclass(frozen=True)
class _Reaching:
    """The cover's members with one left part: their last tokens are a lexicographic range."""

    left: tuple[int, ...]
    low: int
    high: int
    depth: int  # symbols of the last token inside the text; all tokens of the range have more


class ByteStream:
    """The next-byte distribution of a token model behind a text that grows.

    The model's cache may be one that is cut back to what two calls share (generation.PrefixSession): everything asked
    for begins with the tokens before the last sure boundary, so their keys and values always stay.

    Args:
        rows: The model's rows, with full truncation ("byte-exact") or without ("fast": no row over V is ever checked;
            of the members that end exactly with the text only its encoding is kept).
        text: The prompt, any bytes, possibly none.

    Raises:
        NothingFollows: The model gives the prompt or every continuation of it probability 0.
    """

    def __init__(self, rows: TokenRows, text: str = "") -> None:
        self._rows = rows
        self._words = rows.vocabulary.words
        self._rank = rows.vocabulary.rank
        self.alphabet = rows.vocabulary.alphabet
        self._text = GrowingText(rows.vocabulary.tokenizer, text)
        # The longest sequence first: a model that keeps what it has seen answers for its beginnings without a call.
        whole = rows.after(self._text.tokens())
        at_boundary = rows.after(self._text.head) if self._text.tail else whole
        self._known: dict[tuple[int, ...], _Known] = {(): _Known(0.0, at_boundary)}
        self._reaching: list[_Reaching] = []
        self._learn(self._text.head, self._text.tail)
        self._first_cover()

    @property
    def log_mass(self) -> float:
        """ln P(text) as the sum over its cover; given the last sure boundary of the prompt, if there was a prompt."""
        with np.errstate(divide="ignore"):
            reaching = [
                known.log_weight + np.log(known.row.tokens[group.low : group.high].sum())
                for group in self._reaching
                for known in [self._known[group.left]]
            ]
        return float(np.logaddexp.reduce([self._known[self._text.tail].log_weight, *reaching]))

    def cover(self) -> list[Member]:
        """Return the members of the cover with their probabilities, the encoding of the text first."""
        members = [Member(self._text.tail, self._known[self._text.tail].log_weight)]
        for group in self._reaching:
            known = self._known[group.left]
            for place in range(group.low, group.high):
                if (probability := known.row.tokens[place]) > 0:
                    token = int(self._words.order[place])
                    members.append(Member((*group.left, token), known.log_weight + math.log(probability)))
        return members

    def log_probabilities(self) -> np.ndarray:
        """Return ln P(next symbol | text), (A + 1,) float64; the last is the end of the text.

        Raises:
            NothingFollows: Neither a symbol nor the end has any probability.
        """
        own = self._known[self._text.tail]
        top = max([own.log_weight, *(self._known[group.left].log_weight for group in self._reaching)])
        if top == -math.inf:
            raise NothingFollows(f"The model gives the text that ends with {self._text.rest!r} probability 0.")
        sums = np.append(self._words.by_symbol(own.row.tokens, 0, len(self._rank), 0), own.row.end)
        sums *= math.exp(own.log_weight - top)
        for group in self._reaching:
            known = self._known[group.left]
            further = self._words.by_symbol(known.row.tokens, group.low, group.high, group.depth)
            sums[:-1] += math.exp(known.log_weight - top) * further
        total = sums.sum()
        if not total > 0:
            raise NothingFollows(f"The model gives nothing behind {self._text.rest!r} any probability.")
        with np.errstate(divide="ignore"):
            return np.log(sums / total)

    def append(self, symbol: str) -> None:
        """Take one more symbol: one call of the model."""
        code = self._words.code(symbol)
        everything = _Reaching(self._text.tail, 0, len(self._rank), 0)
        self._reaching = [
            narrow for group in (*self._reaching, everything) if (narrow := self._narrowed(group, code)) is not None
        ]
        head = list(self._text.head)
        moved = self._text.append(symbol)
        self._learn(head, (*moved, *self._text.tail))
        if moved:
            self._move_boundary(moved)
        self._forget()

    def _first_cover(self) -> None:
        rest, head = self._text.rest, self._text.head
        tokenizer = self._rows.vocabulary.tokenizer
        for place in range(max(0, len(rest) - self._words.longest + 1), len(rest)):
            depth = len(rest) - place
            low, high = self._words.longer(*self._words.below(rest[place:]), depth)
            if low == high:
                continue
            left = tuple(tokenizer.encode(rest[:place]))
            if self._rows.possible([*head, *left], low, high):
                self._learn(head, left)
                self._reaching.append(_Reaching(left, low, high, depth))

    def _narrowed(self, group: _Reaching, code: int) -> _Reaching | None:
        low, high = self._words.narrow(group.low, group.high, group.depth, code)
        low, high = self._words.longer(low, high, group.depth + 1)
        return _Reaching(group.left, low, high, group.depth + 1) if low < high else None

    def _learn(self, head: list[int], tail: tuple[int, ...]) -> None:
        """Ask the model behind an encoding, and work out the probability of that encoding from what is known."""
        if tail in self._known:
            return
        row = self._rows.after([*head, *tail])
        size = next(size for size in range(len(tail) - 1, -1, -1) if tail[:size] in self._known)
        for end in range(size + 1, len(tail) + 1):
            before = self._known[tail[: end - 1]]
            probability = before.row.tokens[self._rank[tail[end - 1]]]
            log_weight = before.log_weight + (math.log(probability) if probability > 0 else -math.inf)
            longer = row if end == len(tail) else self._rows.after([*head, *tail[:end]])
            self._known[tail[:end]] = _Known(log_weight, longer)

    def _move_boundary(self, moved: tuple[int, ...]) -> None:
        """Write everything down as it stands behind the new boundary; no valid token reaches over it."""
        size = len(moved)
        self._known = {left[size:]: known for left, known in self._known.items() if left[:size] == moved}
        self._reaching = [
            _Reaching(group.left[size:], group.low, group.high, group.depth)
            for group in self._reaching
            if group.left[:size] == moved
        ]

    def _forget(self) -> None:
        """Drop the rows behind encodings that no token reaches over the end from any more."""
        if len(self._known) > 4 * self._words.longest + 4:
            length = len(self._text.rest)
            vocabulary = self._words.vocabulary
            self._known = {
                left: known
                for left, known in self._known.items()
                if length - sum(len(vocabulary[token]) for token in left) <= self._words.longest
            }
