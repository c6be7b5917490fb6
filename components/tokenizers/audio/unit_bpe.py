"""Byte-pair encoding over discrete units: frequent neighbours become one token, expansion gives the units back.

Units are integers (codes of a speech encoder, phones of a phonetizer). Each becomes one private character, so that the
BPE of text serves; no pre-tokenizer cuts them unless a separator is named, and merges never cross two utterances.

Letters: `U` base units, `V` tokens, `n` units of an utterance, `m <= n` tokens of it.

Source: Dekel and Fernandez 2024, "Exploring the Benefits of Tokenization of Discrete Acoustic Units", section 2;
Sennrich et al. 2016, section 3.2.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE

from components.errors import TesseraError
from components.tokenizers.text import bpe
from components.tokenizers.text.piecewise import PiecewiseTokenizer

_FIRST = 0xF0000  # plane 15 is private: no text rule of any library applies to its characters
_MOST = 0xFFFE
_BOUNDARY = -1  # between utterances


class UnitBPEError(TesseraError):
    """Units that a tokenizer of units does not know, or settings without meaning."""


class UnitBPE:
    """Merges over `U` units; see the module.

    Attributes:
        base_size: U.
        expansions: Units of each token; the first U tokens are the units themselves.
    """

    def __init__(self, tokenizer: PiecewiseTokenizer) -> None:
        self._tokenizer = tokenizer
        self.expansions = tuple(tuple(_units(token)) for token in tokenizer.vocabulary)
        self.base_size = sum(len(units) == 1 for units in self.expansions)
        if self.expansions[: self.base_size] != tuple((unit,) for unit in range(self.base_size)):
            raise UnitBPEError("The first tokens are not the units 0, 1, ... in order; expected a tokenizer of units.")

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return len(self.expansions)

    def encode(self, units: Sequence[int]) -> list[int]:
        """Return the tokens of an utterance, m of them for n units.

        Raises:
            UnitBPEError: A unit is outside 0 .. U - 1.
        """
        _check(units, self.base_size)
        return self._tokenizer.encode(characters(units))

    def decode(self, tokens: Sequence[int]) -> list[int]:
        """Return the units that tokens expand to.

        Raises:
            UnitBPEError: A token is outside 0 .. V - 1.
        """
        if wrong := [token for token in tokens if not 0 <= token < self.vocabulary_size]:
            raise UnitBPEError(f"Token {wrong[0]} is none of the {self.vocabulary_size}.")
        return list(itertools.chain.from_iterable(self.expansions[token] for token in tokens))

    def save(self, path: Path) -> None:
        """Write the tokenizer as the library's JSON."""
        self._tokenizer.save(path)


def train(
    utterances: Iterable[Sequence[int]], vocabulary_size: int, *, base_size: int, separator: int | None = None
) -> UnitBPE:
    """Learn merges: again and again the most frequent neighbours of all utterances, ties by the lower ids.

    Args:
        utterances: Units of each utterance; merges do not cross from one into another.
        vocabulary_size: V, base units included. Fewer come out when no pair is left.
        base_size: U; units that the utterances lack are tokens, too.
        separator: Unit that stays alone and that no merge crosses (a word boundary), None where merges cross all.

    Raises:
        UnitBPEError: A unit is outside 0 .. U - 1, or V is smaller than U.
    """
    _check_sizes(base_size, vocabulary_size)
    texts = []
    for units in utterances:
        _check(units, base_size)
        texts.append(characters(units))
    pieces = ""
    if separator is not None:
        _check([separator], base_size)
        mark = characters([separator])
        pieces = f"{mark}|[^{mark}]+"
    alphabet = characters(range(base_size))
    return UnitBPE(bpe.train(texts, vocabulary_size, alphabet=alphabet, pieces=pieces))


def train_random(
    utterances: Iterable[Sequence[int]], vocabulary_size: int, *, base_size: int, generator: torch.Generator
) -> UnitBPE:
    """Learn as many merges of pairs drawn at random: the control that tells frequency from shortening.

    Every merge is drawn evenly among the different pairs that are neighbours after the merges before it.

    Args:
        utterances: Units of each utterance; merges do not cross from one into another.
        vocabulary_size: V, base units included. Fewer come out when no pair is left.
        base_size: U.
        generator: Draws the pairs.

    Raises:
        UnitBPEError: As in `train`.
    """
    _check_sizes(base_size, vocabulary_size)
    parts = []
    for units in utterances:
        _check(units, base_size)
        parts += [np.asarray(units, dtype=np.int64), np.array([_BOUNDARY])]
    tokens = np.concatenate(parts) if parts else np.array([_BOUNDARY])
    spelled, merges = [characters([unit]) for unit in range(base_size)], []
    while len(spelled) < vocabulary_size:
        inside = (tokens[:-1] != _BOUNDARY) & (tokens[1:] != _BOUNDARY)
        pairs = np.unique(tokens[:-1][inside] * vocabulary_size + tokens[1:][inside])
        # A pair that spells an existing token would be no new token.
        known = set(spelled)
        pairs = [divmod(int(pair), vocabulary_size) for pair in pairs]
        pairs = [(left, right) for left, right in pairs if spelled[left] + spelled[right] not in known]
        if not pairs:
            break
        left, right = pairs[int(torch.randint(len(pairs), (), generator=generator))]
        merges.append((spelled[left], spelled[right]))
        spelled.append(spelled[left] + spelled[right])
        tokens = _merged(tokens, left, right, len(spelled) - 1)
    vocabulary = {token: place for place, token in enumerate(spelled)}
    return UnitBPE(bpe.BytePairTokenizer(Tokenizer(BPE(vocab=vocabulary, merges=merges))))


def _merged(tokens: np.ndarray, left: int, right: int, new: int) -> np.ndarray:
    """Replace every pair, from the left, by a new token."""
    starts = np.flatnonzero((tokens[:-1] == left) & (tokens[1:] == right))
    if left == right and len(starts):
        # In a run of equal tokens every second one starts a pair.
        runs = np.cumsum(np.diff(starts, prepend=starts[0]) != 1)
        firsts = starts[np.searchsorted(runs, runs)]
        starts = starts[(starts - firsts) % 2 == 0]
    tokens = tokens.copy()
    tokens[starts] = new
    return np.delete(tokens, starts + 1)


def load(path: Path) -> UnitBPE:
    """Read a tokenizer that `save` wrote."""
    return UnitBPE(bpe.load(path))


def collapsed(units: Sequence[int]) -> list[int]:
    """Return units with runs of equal ones made one: the durations are gone."""
    return [unit for unit, _ in itertools.groupby(units)]


def characters(units: Iterable[int]) -> str:
    """Return units as private characters."""
    return "".join(chr(_FIRST + unit) for unit in units)


def _units(text: str) -> list[int]:
    return [ord(character) - _FIRST for character in text]


def _check_sizes(base_size: int, vocabulary_size: int) -> None:
    if not 1 <= base_size <= _MOST or vocabulary_size < base_size:
        raise UnitBPEError(
            f"base_size is {base_size}, vocabulary_size {vocabulary_size}; expected 1 <= base_size <= vocabulary_size "
            f"and at most {_MOST} base units."
        )


def _check(units: Sequence[int], size: int) -> None:
    if wrong := [unit for unit in units if not 0 <= unit < size]:
        raise UnitBPEError(f"Unit {wrong[0]} is none of the {size} base units; expected 0 to {size - 1}.")
