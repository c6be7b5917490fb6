"""Bytes as symbols: tokenizers here work on the characters of `str`, and a text's UTF-8 bytes pass as latin-1.

One symbol per byte, so every text has an encoding, lengths count bytes, and no token is a torn character.
"""

from __future__ import annotations

import numpy as np

BYTES = bytes(range(256)).decode("latin-1")
"""The alphabet: all 256 symbols, by value."""

SPACED_PIECES = r"\s*[A-Za-z_]+|\s*[^A-Za-z_\s]+|\s+"
"""White space and the identifier or the run of signs behind it: an indentation and its word can be one token.

A piece ends between two neighbours exactly if white space follows something else, or one of the two is a letter and
the other a sign. So the pieces depend on neighbours alone, and one that another follows is finished.
"""


def to_symbols(text: str | bytes) -> str:
    """Return a text's UTF-8 bytes as symbols, one per byte."""
    return (text.encode("utf-8") if isinstance(text, str) else text).decode("latin-1")


def to_bytes(symbols: str) -> bytes:
    """Return the bytes that symbols stand for; `to_bytes(to_symbols(b)) == b`."""
    return symbols.encode("latin-1")


def byte_lengths(vocabulary: tuple[str, ...]) -> np.ndarray:
    """Return the number of bytes of every token of a byte-level vocabulary, (V,) int64."""
    return np.array([len(token) for token in vocabulary], np.int64)
