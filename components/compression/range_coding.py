"""Token indices as the bits that they really need: an adaptive range coder.

    before every block of symbols     p_s(k) = (count_s(k) + 1/2) / (seen + K_s / 2)     for each column s of a vector

The coder begins with equal probabilities and counts what it has coded, as the decoder does, so nothing is sent beside
the stream: its length is the whole price, learning included. A column sees only its own past, neither its neighbours
in space nor the other columns; what those would tell is left in the stream.

Letters: `N` vectors in order, `S` columns of a vector, `K_s` symbols of column s.

Sources: Martin 1979 (range coding), through the library `constriction` (Bamler 2022); Krichevsky and Trofimov 1981
(the estimate with 1/2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import constriction
import numpy as np

from components.errors import TesseraError

BLOCK = 64
"""Vectors between two updates of the probabilities."""


class RangeCodingError(TesseraError):
    """Symbols do not fit their alphabets, or a stream does not hold what was asked of it."""


def encode(symbols: np.ndarray, sizes: Sequence[int], block: int = BLOCK) -> bytes:
    """Code vectors of symbols adaptively.

    Args:
        symbols: Integers (N, S), column s in [0, K_s).
        sizes: K_1, ..., K_S, each at least 2.
        block: Vectors between two updates of the probabilities.

    Raises:
        RangeCodingError: A symbol lies outside its alphabet, or the shape does not fit the sizes.
    """
    values = _checked(symbols, sizes, block)
    encoder, counts = constriction.stream.queue.RangeEncoder(), _Counts(sizes)
    for start in range(0, len(values), block):
        piece = values[start : start + block]
        for column in range(len(sizes)):
            encoder.encode(np.ascontiguousarray(piece[:, column]), counts.model(column))
        counts.add(piece)
    return encoder.get_compressed().astype("<u4").tobytes()


def decode(stream: bytes, count: int, sizes: Sequence[int], block: int = BLOCK) -> np.ndarray:
    """Read vectors back.

    Args:
        stream: From `encode`, with the same sizes and block.
        count: N.
        sizes: K_1, ..., K_S.
        block: As for `encode`.

    Returns:
        int64 (N, S).

    Raises:
        RangeCodingError: The stream is no whole number of 32-bit words.
    """
    if len(stream) % 4:
        raise RangeCodingError(f"the stream has {len(stream)} bytes; expected whole words of 4. Pass it uncut.")
    decoder, counts = constriction.stream.queue.RangeDecoder(np.frombuffer(stream, "<u4")), _Counts(sizes)
    values = np.empty((count, len(sizes)), dtype=np.int32)
    for start in range(0, count, block):
        piece = values[start : start + block]
        for column in range(len(sizes)):
            piece[:, column] = decoder.decode(counts.model(column), len(piece))
        counts.add(piece)
    return values.astype(np.int64)


def grouped(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Put neighbouring places together as long as their combinations stay within `most`; a larger place stays alone.

    Coded together, places need what they tell about one another only once; the table of counts grows with the product.
    """
    groups: list[list[int]] = []
    for place, size in enumerate(sizes):
        if groups and math.prod(sizes[other] for other in groups[-1]) * size <= most:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def join(indices: np.ndarray, sizes: Sequence[int], most: int) -> tuple[np.ndarray, list[int]]:
    """Return symbols (N, S) and their alphabets: indices (N, M) joined as `grouped` says, the first varying fastest."""
    columns, alphabets = [], []
    for places in grouped(sizes, most):
        symbol, worth = np.zeros(len(indices), dtype=np.int64), 1
        for place in places:
            symbol += worth * indices[:, place].astype(np.int64)
            worth *= sizes[place]
        columns.append(symbol)
        alphabets.append(worth)
    return np.stack(columns, 1), alphabets


class _Counts:
    """What was coded so far, a table for every column."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._tables = [np.full(size, 0.5) for size in sizes]

    def model(self, column: int) -> constriction.stream.model.Categorical:
        table = self._tables[column]
        return constriction.stream.model.Categorical(table / table.sum(), perfect=False)

    def add(self, piece: np.ndarray) -> None:
        for column, table in enumerate(self._tables):
            table += np.bincount(piece[:, column], minlength=len(table))


def _checked(symbols: np.ndarray, sizes: Sequence[int], block: int) -> np.ndarray:
    values = np.asarray(symbols)
    if values.ndim != 2 or values.shape[1] != len(sizes) or not len(sizes):
        raise RangeCodingError(
            f"symbols have shape {values.shape} for {len(sizes)} alphabets; expected (N, {len(sizes)}), "
            "one column each."
        )
    if min(sizes) < 2 or block < 1:
        raise RangeCodingError(f"alphabets {list(sizes)}, block {block}; expected 2 symbols or more, 1 vector or more.")
    if len(values) and ((values < 0) | (values >= np.asarray(sizes))).any():
        low, high = values.min(0).tolist(), values.max(0).tolist()
        raise RangeCodingError(f"symbols span {low} to {high}; expected 0 to below {list(sizes)}, column by column.")
    return values.astype(np.int32)
