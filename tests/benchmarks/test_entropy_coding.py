"""Adaptive range coding of codebook indices: its bits beside its model's entropy, its speed beside the library's own.

The peer is constriction called directly: the same counts and models in a plain loop, without checks or types; it writes
the same bytes. The limit codes everything in one call with one model that is known beforehand. Indices are 16-bit
integers in memory, so MB/s counts two bytes for each.
"""

from __future__ import annotations

import constriction
import numpy as np
import pytest
import turns

from components.compression import range_coding

pytestmark = pytest.mark.benchmark_bar

VECTORS, COLUMNS, SIZE, BYTES_OF_INDEX = 16_384, 4, 256, 2
MOST_SURPLUS_PERCENT, BAR = 0.5, 0.8

Model = constriction.stream.model.Categorical


@pytest.fixture(scope="module")
def symbols() -> np.ndarray:
    """Indices of four codebooks whose entries are used as unequally as words are, about 6 bits each."""
    weights = 1 / np.arange(1, SIZE + 1)
    return np.random.default_rng(0).choice(SIZE, (VECTORS, COLUMNS), p=weights / weights.sum())


def bits_of_the_model(symbols: np.ndarray) -> float:
    """Return the bits that the coder's own probabilities ask for, -sum log2 p over all indices."""
    counts, bits = np.full((COLUMNS, SIZE), 0.5), 0.0
    for start in range(0, len(symbols), range_coding.BLOCK):
        for column, values in enumerate(symbols[start : start + range_coding.BLOCK].T):
            bits -= float(np.log2(counts[column, values] / counts[column].sum()).sum())
            counts[column] += np.bincount(values, minlength=SIZE)
    return bits


def encode_directly(symbols: np.ndarray) -> bytes:
    """Code with the library in a plain loop."""
    encoder, counts = constriction.stream.queue.RangeEncoder(), np.full((COLUMNS, SIZE), 0.5)
    for start in range(0, len(symbols), range_coding.BLOCK):
        piece = symbols[start : start + range_coding.BLOCK].astype(np.int32)
        for column in range(COLUMNS):
            values = np.ascontiguousarray(piece[:, column])
            encoder.encode(values, Model(counts[column] / counts[column].sum(), perfect=False))
            counts[column] += np.bincount(values, minlength=SIZE)
    return encoder.get_compressed().astype("<u4").tobytes()


def decode_directly(stream: bytes) -> np.ndarray:
    """Read the stream with the library in a plain loop."""
    decoder, counts = (
        constriction.stream.queue.RangeDecoder(np.frombuffer(stream, "<u4")),
        np.full((COLUMNS, SIZE), 0.5),
    )
    found = np.empty((VECTORS, COLUMNS), np.int64)
    for start in range(0, VECTORS, range_coding.BLOCK):
        piece = found[start : start + range_coding.BLOCK]
        for column in range(COLUMNS):
            model = Model(counts[column] / counts[column].sum(), perfect=False)
            piece[:, column] = decoder.decode(model, len(piece))
            counts[column] += np.bincount(piece[:, column], minlength=SIZE)
    return found


def test_adaptive_coding_beside_the_library_called_directly(symbols, benchmark):
    fixed = Model(np.bincount(symbols.ravel(), minlength=SIZE) / symbols.size, perfect=False)
    flat = np.ascontiguousarray(symbols.ravel()).astype(np.int32)

    def encode_fixed() -> None:
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(flat, fixed)
        encoder.get_compressed()

    sizes = [SIZE] * COLUMNS
    stream = range_coding.encode(symbols, sizes)
    assert stream == encode_directly(symbols)
    assert np.array_equal(range_coding.decode(stream, VECTORS, sizes), symbols)
    assert np.array_equal(decode_directly(stream), symbols)
    works = {
        "encode": lambda: range_coding.encode(symbols, sizes),
        "encode directly": lambda: encode_directly(symbols),
        "decode": lambda: range_coding.decode(stream, VECTORS, sizes),
        "decode directly": lambda: decode_directly(stream),
        "fixed": encode_fixed,
    }
    times = turns.in_turns(benchmark, works, rounds=11)
    amount = BYTES_OF_INDEX * symbols.size / 1e6
    encode, decode = (turns.facts(times[way], times[f"{way} directly"], amount=amount) for way in ("encode", "decode"))
    surplus = 100 * (8 * len(stream) / bits_of_the_model(symbols) - 1)
    benchmark.extra_info.update(
        surplus_percent=surplus,
        bits_per_index=8 * len(stream) / symbols.size,
        encode=encode | {"limit": turns.facts(times["fixed"], amount=amount)["ours"]},
        decode=decode,
    )
    print(benchmark.extra_info)
    assert surplus <= MOST_SURPLUS_PERCENT
    assert min(encode["ratio"], decode["ratio"]) >= BAR
