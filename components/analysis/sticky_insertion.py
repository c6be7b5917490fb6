"""Insertion of a token's text into a sentence: in front, behind, or at random word boundaries.

    prefix   t t t w_1 ... w_W         suffix   w_1 ... w_W t t t         random   w_1 t w_2 ... t w_W t

The token goes in as text, between spaces, so that the tokenizer reads the edited sentence as it would read a user's.
Random places are drawn one copy after the other: with more copies a sentence holds the one with fewer as a subsequence.
They are drawn once per sentence and shared by all tokens, whose scores are then compared on the same places.

Source: Chen et al. 2025, "Sticking to the Mean: Detecting Sticky Tokens in Text Embedding Models", on insertion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.errors import TesseraError

MODES = ("prefix", "suffix", "random")


class InsertionError(TesseraError):
    """An insertion that has no meaning."""


@dataclass(frozen=True)
class Template:
    """A sentence with gaps for copies of a token.

    Attributes:
        mode: One of MODES.
        copies: Number of gaps n.
        pieces: Text between the gaps, n + 1 strings.
    """

    mode: str
    copies: int
    pieces: tuple[str, ...]

    def fill(self, token: str) -> str:
        """Return the sentence with the token's text in every gap."""
        return token.join(self.pieces)


def templates(sentence: str, counts: Sequence[int], generator: np.random.Generator) -> list[Template]:
    """Return the templates of a sentence, by mode and then by number of copies.

    Args:
        sentence: Words between spaces.
        counts: Numbers of copies, increasing.
        generator: Draws the places of mode `random`.

    Raises:
        InsertionError: The sentence has no words, or the counts do not increase from 0 or more.
    """
    words = sentence.split()
    if not words:
        raise InsertionError("A sentence without words has no place to insert at.")
    if not counts or any(later <= earlier for earlier, later in zip((-1, *counts), counts, strict=False)):
        raise InsertionError(f"numbers of copies are {list(counts)}; expected them to increase, from 0 or more.")
    places = {
        "prefix": np.zeros(counts[-1], dtype=np.int64),
        "suffix": len(words) + np.arange(counts[-1]),
        "random": generator.integers(len(words) + 1 + np.arange(counts[-1])),
    }
    return [
        Template(mode, copies, _pieces(words, places[mode][:copies].tolist())) for mode in MODES for copies in counts
    ]


def _pieces(words: Sequence[str], places: Sequence[int]) -> tuple[str, ...]:
    """Put gaps at places, each among the words and the gaps before it; return the text between gaps."""
    row: list[str | None] = list(words)
    for place in places:
        row.insert(place, None)
    parts: list[list[str]] = [[]]
    for word in row:
        if word is None:
            parts.append([])
        else:
            parts[-1].append(word)
    pieces = []
    for number, part in enumerate(parts):
        # A gap takes a space on each side where something stands; between two gaps one space is enough.
        before = " " if number and (part or number < len(parts) - 1) else ""
        after = " " if part and number < len(parts) - 1 else ""
        pieces.append(before + " ".join(part) + after)
    return tuple(pieces)
