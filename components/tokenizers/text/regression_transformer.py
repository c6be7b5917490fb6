"""The Regression Transformer's spelling of numbers: every digit token carries its decimal place.

    365   -> _3_2_ _6_1_ _5_0_
    3.14  -> _3_0_ . _1_-1_ _4_-2_

Letters: N texts, T tokens of the longest one.

Source: Born and Manica 2023, "Regression Transformer enables concurrent sequence regression and generation for
molecular language modelling", section "Regression Transformer" (tokenisation of numbers).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.errors import TesseraError
from components.tokenizers.text.numeric import (
    ALPHABET,
    DIGITS,
    END,
    NOTHING,
    CharacterTokenizer,
    Encoded,
    NumberTokens,
)


class UnknownPlace(TesseraError):
    """A number has a digit in a place that the vocabulary has no tokens for."""


class PlaceTokenizer:
    """Characters, but a token for each pair of digit and decimal place; an end token behind them.

    Args:
        alphabet: Characters, the ten digits among them.
        places: Lowest and highest decimal place, such as (-2, 5).

    Attributes:
        vocabulary: Characters without digits, then the end token, then digits 0 to 9 of the lowest place, and so on.
        end_token: Id of the end token.
        number_tokens: The digit tokens, each worth v 10^place.
    """

    def __init__(self, alphabet: str = ALPHABET, places: tuple[int, int] = (-2, 5)) -> None:
        self._characters = CharacterTokenizer(alphabet)
        self._places = places
        others = [character for character in alphabet if character not in DIGITS]
        steps = range(places[0], places[1] + 1)
        self.vocabulary = [*others, END, *(f"_{digit}_{place}_" for place in steps for digit in DIGITS)]
        self.end_token, self._first = len(others), len(others) + 1
        values = tuple(int(digit) * 10.0**place for place in steps for digit in DIGITS)
        self.number_tokens = NumberTokens(tuple(range(self._first, len(self.vocabulary))), values)
        # Ids of the character tokenizer: of other characters to ours, of digits to their values.
        known = self._characters.vocabulary[:-1]
        self._other = np.array([others.index(c) if c in others else NOTHING for c in known])
        self._digit = np.array([DIGITS.find(character) for character in known])
        self._back = np.array([known.index(character) for character in others])

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without the end token."""
        return self.encode_all([text]).ids[0].tolist()

    def decode(self, tokens: Sequence[int]) -> str:
        """Return what stands before the first end token."""
        return self.decode_all(np.asarray(tokens, np.int64)[None])[0]

    def encode_all(self, texts: Sequence[str]) -> Encoded:
        """Encode texts, without the end token.

        Raises:
            UnknownCharacter: A character is not in the alphabet.
            UnknownPlace: A number is too long.
        """
        encoded = self._characters.encode_all(texts)
        inside = encoded.ids != NOTHING
        digit = np.where(inside, self._digit[encoded.ids], -1)
        point = inside & (encoded.ids == self._characters.vocabulary.index("."))
        place = decimal_places(digit >= 0, point)
        low, high = self._places
        if (wrong := (digit >= 0) & ((place < low) | (place > high))).any():
            row = int(np.argwhere(wrong)[0][0])
            raise UnknownPlace(
                f"{texts[row]!r} has a digit outside the places {low} to {high}; give the tokenizer more places."
            )
        numbers = self._first + (place - low) * len(DIGITS) + digit
        ids = np.where(digit >= 0, numbers, np.where(inside, self._other[encoded.ids], NOTHING))
        return Encoded(ids, encoded.lengths)

    def decode_all(self, ids: np.ndarray, values: np.ndarray | None = None) -> list[str]:
        """Return what each row of ids (N, T) spells before its first end token or NOTHING.

        A number whose places do not fall one by one to the end of its integer part (and on behind a point) is no
        number: its digits are then spelled as their tokens, so that nobody reads a value into it.
        """
        ids = np.asarray(ids, np.int64)
        if not ids.size:
            return [""] * len(ids)
        open_ = np.logical_and.accumulate((ids != NOTHING) & (ids != self.end_token), axis=1)
        number = open_ & (ids >= self._first)
        place, digit = np.divmod(np.where(number, ids - self._first, 0), len(DIGITS))
        point = open_ & (ids == self.vocabulary.index("."))
        right = decimal_places(number, point) == place + self._places[0]
        other = self._back[np.where(open_ & ~number, ids, 0)]
        characters = np.where(number, np.array(self._characters.number_tokens.ids)[digit], other)
        texts = self._characters.decode_all(np.where(open_, characters, NOTHING))
        for row in np.flatnonzero((number & ~right).any(1)):
            texts[row] = "".join(self.vocabulary[token] for token in ids[row][open_[row]])
        return texts

    def save(self, path: Path) -> None:
        """Write alphabet and places as JSON."""
        alphabet = "".join(self._characters.vocabulary[:-1])
        path.write_text(json.dumps({"kind": "places", "alphabet": alphabet, "places": self._places}) + "\n")


def decimal_places(digits: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the decimal place of every digit.

    Args:
        digits: Where a digit stands, (N, T) boolean.
        points: Where a decimal point stands, (N, T) boolean; it counts between two digits.

    Returns:
        (N, T) int64; 0 where there is no digit.
    """
    after, before = np.zeros(digits.shape, np.int64), np.zeros(digits.shape, np.int64)
    fraction = np.zeros(digits.shape, bool)
    last = digits.shape[1] - 1
    for place in range(1, last + 1):
        joined = digits[:, place] & digits[:, place - 1]
        before[:, place] = np.where(joined, before[:, place - 1] + 1, 0)
        behind_point = points[:, place - 1] & digits[:, place - 2] if place > 1 else False
        fraction[:, place] = digits[:, place] & (behind_point | (joined & fraction[:, place - 1]))
        back = last - place
        after[:, back] = np.where(digits[:, back] & digits[:, back + 1], after[:, back + 1] + 1, 0)
    return np.where(digits, np.where(fraction, -1 - before, after), 0)


def build() -> PlaceTokenizer:
    """Make the tokenizer of lower-case questions and answers."""
    return PlaceTokenizer()


def load(path: Path) -> PlaceTokenizer:
    """Read a tokenizer that `save` wrote."""
    saved = json.loads(path.read_text())
    return PlaceTokenizer(saved["alphabet"], tuple(saved["places"]))
