"""Tokenizers in which every digit is a token of its own, so that numbers are spelled place by place.

Letters: N texts, T tokens of the longest one. Ids behind the end of a text are -1 (`NOTHING`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.errors import TesseraError

DIGITS = "0123456789"
ALPHABET = " ()*+,-./:=?" + DIGITS + "abcdefghijklmnopqrstuvwxyz"
END = "<end>"
NOTHING = -1


class UnknownCharacter(TesseraError):
    """A text holds a character that is no token."""


@dataclass(frozen=True)
class NumberTokens:
    """The tokens of a vocabulary that stand for numbers.

    Attributes:
        ids: K token ids.
        values: What each stands for.
    """

    ids: tuple[int, ...]
    values: tuple[float, ...]

    def shuffled(self, seed: int) -> NumberTokens:
        """Return the same tokens with their values permuted: as many distances, none of them true."""
        order = np.random.default_rng([seed, *b"shuffled values"]).permutation(len(self.ids))
        return NumberTokens(self.ids, tuple(self.values[place] for place in order))


@dataclass(frozen=True)
class Encoded:
    """Texts as tokens.

    Attributes:
        ids: (N, T) int64, NOTHING behind the end of a text.
        lengths: Tokens of each text, (N,) int64.
        values: Number that each token carries beside its id, (N, T) float32, 1 where it carries none; None for
            tokenizers whose ids say everything.
    """

    ids: np.ndarray
    lengths: np.ndarray
    values: np.ndarray | None = None


class CharacterTokenizer:
    """Each character is a token; signs, points and operators are ordinary tokens; behind them an end token.

    Attributes:
        vocabulary: Characters by id, then the end token.
        end_token: Id of the end token; it stands for no character.
        number_tokens: The ten digits, each worth its value in whatever place it stands.

    Source: Zausinger et al. 2025, "Regress, Don't Guess", section 3 (number tokens are single digits).
    """

    def __init__(self, alphabet: str = ALPHABET) -> None:
        if len(set(alphabet)) < len(alphabet) or not set(DIGITS) <= set(alphabet):
            raise TesseraError(f"alphabet {alphabet!r}: expected different characters, the ten digits among them.")
        self.vocabulary = [*alphabet, END]
        self.end_token = len(alphabet)
        self.number_tokens = NumberTokens(tuple(alphabet.index(digit) for digit in DIGITS), tuple(map(float, DIGITS)))
        self._points = np.array([*map(ord, alphabet), 0], np.uint32)
        self._ids = np.full(int(self._points.max()) + 2, NOTHING, np.int64)
        self._ids[self._points[:-1]] = np.arange(len(alphabet))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text's characters, without the end token."""
        return self.encode_all([text]).ids[0].tolist()

    def decode(self, tokens: Sequence[int]) -> str:
        """Return what stands before the first end token."""
        return self.decode_all(np.asarray(tokens, np.int64)[None])[0]

    def encode_all(self, texts: Sequence[str]) -> Encoded:
        """Encode texts, without the end token.

        Raises:
            UnknownCharacter: A character is not in the alphabet.
        """
        points, lengths = character_matrix(texts)
        ids = self._ids[np.minimum(points, len(self._ids) - 1)]
        strange = (ids == NOTHING) & (np.arange(points.shape[1]) < lengths[:, None])
        if strange.any():
            row, place = map(int, np.argwhere(strange)[0])
            raise UnknownCharacter(
                f"{texts[row]!r}: the character {texts[row][place]!r} at {place} is no token; expected characters of "
                f"{''.join(self.vocabulary[:-1])!r}. Write the text in these, or give the tokenizer a larger alphabet."
            )
        return Encoded(ids, lengths)

    def decode_all(self, ids: np.ndarray, values: np.ndarray | None = None) -> list[str]:
        """Return what each row of ids (N, T) spells before its first end token or NOTHING."""
        ids = np.asarray(ids, np.int64)
        if not ids.size:
            return [""] * len(ids)
        open_ = np.logical_and.accumulate((ids != NOTHING) & (ids != self.end_token), axis=1)
        points = np.where(open_, self._points[ids], 0).astype(np.uint32)
        return np.ascontiguousarray(points).view(f"<U{points.shape[1]}")[:, 0].tolist()

    def save(self, path: Path) -> None:
        """Write the alphabet as JSON."""
        path.write_text(json.dumps({"kind": "numeric", "alphabet": "".join(self.vocabulary[:-1])}) + "\n")


def character_matrix(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the code points of texts, (N, T) int64 with 0 behind the end, and their lengths, (N,) int64."""
    lengths = np.array([len(text) for text in texts], np.int64)
    longest = max(1, int(lengths.max(initial=0)))
    points = np.array(texts, dtype=f"<U{longest}").reshape(-1, 1).view(np.uint32)
    return points.astype(np.int64), lengths


def build() -> CharacterTokenizer:
    """Make the tokenizer of lower-case questions and answers."""
    return CharacterTokenizer()


def load(path: Path) -> CharacterTokenizer:
    """Read a tokenizer that `save` wrote."""
    return CharacterTokenizer(json.loads(path.read_text())["alphabet"])
