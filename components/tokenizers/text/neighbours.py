"""Where a pre-tokenizer cuts, as a table over pairs of neighbouring symbols.

Letters: A symbols.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from components.errors import TesseraError


class NotDecidedByNeighbours(TesseraError):
    """A pre-tokenizer cuts one and the same pair of symbols here and not there."""


class PieceTokenizer(Protocol):
    """A tokenizer that encodes piece by piece."""

    vocabulary: tuple[str, ...]

    def encode_with_pieces(self, text: str) -> tuple[list[int], list[int]]:
        """Return the token ids of a text and, for each, the index of its piece."""


def piece_cuts(tokenizer: PieceTokenizer, alphabet: str) -> np.ndarray:
    """Return between which neighbouring symbols the tokenizer begins a new piece, (A, A) booleans, left symbol first.

    The tokenizer itself cuts a text in which every pair of neighbours stands at least twice, behind other symbols.

    Raises:
        NotDecidedByNeighbours: It does not always do the same; only re-encoding decides validity then.
    """
    found = np.zeros((len(alphabet), len(alphabet), 2), bool)
    codes = _every_pair(len(alphabet))
    cuts = _cuts(tokenizer, "".join(alphabet[code] for code in codes.tolist()))
    found[codes[:-1], codes[1:], cuts.astype(np.int64)] = True
    if (both := found.all(-1)).any():
        left, right = (alphabet[code] for code in np.argwhere(both)[0])
        raise NotDecidedByNeighbours(
            f"The pre-tokenizer cuts between {left!r} and {right!r} in one place and not in another; expected pieces "
            "that depend on neighbouring symbols alone, such as byte_level.SPACED_PIECES. Use ReencodedContinuations."
        )
    return found[..., 1]


def _every_pair(size: int) -> np.ndarray:
    """Return symbol codes in which every ordered pair stands side by side: x 0 x 1 x 2 ... for each x."""
    return np.stack(np.broadcast_arrays(np.arange(size)[:, None], np.arange(size)), axis=-1).ravel()


def _cuts(tokenizer: Any, text: str) -> np.ndarray:
    """Return whether a piece begins behind each symbol but the last, (N - 1,) booleans."""
    tokens, pieces = tokenizer.encode_with_pieces(text)
    ends = np.cumsum([len(tokenizer.vocabulary[token]) for token in tokens])
    cuts = np.zeros(len(text), bool)
    cuts[ends[:-1][np.diff(pieces) > 0]] = True
    return cuts[1:]
