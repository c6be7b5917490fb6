"""Adaptive range coding: what goes in comes out, at the length that the adaptive probabilities give."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.compression.range_coding import RangeCodingError, decode, encode, grouped, join


def ideal_bits(symbols: np.ndarray, sizes, block: int) -> float:
    """-log2 of the adaptive probabilities, symbol by symbol, in plain Python."""
    counts, bits = [[0.5] * size for size in sizes], 0.0
    for start in range(0, len(symbols), block):
        piece = symbols[start : start + block].tolist()
        for row in piece:
            for column, symbol in enumerate(row):
                bits -= math.log2(counts[column][symbol] / sum(counts[column]))
        for row in piece:
            for column, symbol in enumerate(row):
                counts[column][symbol] += 1
    return bits


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_symbols_come_back_whatever_they_are(data):
    sizes = data.draw(st.lists(st.integers(2, 40), min_size=1, max_size=3))
    rows = data.draw(st.lists(st.tuples(*[st.integers(0, size - 1) for size in sizes]), max_size=50))
    block = data.draw(st.integers(1, 9))
    symbols = np.array(rows, dtype=np.int64).reshape(len(rows), len(sizes))
    assert np.array_equal(decode(encode(symbols, sizes, block), len(rows), sizes, block), symbols)


@pytest.mark.parametrize("sizes", [[512], [16, 5]])
def test_the_stream_is_as_long_as_the_probabilities_say(sizes):
    rng = np.random.default_rng(0)
    symbols = np.stack([rng.geometric(0.1, 3_000) % size for size in sizes], 1)
    bits = 8 * len(encode(symbols, sizes, 50))
    assert ideal_bits(symbols, sizes, 50) == pytest.approx(bits, abs=64 + 1e-3 * bits)


def test_a_collapsed_codebook_costs_only_the_learning_and_a_uniform_one_all_of_its_bits():
    rng = np.random.default_rng(1)
    constant = np.zeros((20_000, 1), dtype=np.int64)
    assert 8 * len(encode(constant, [4096])) / 20_000 < 0.6
    uniform = rng.integers(0, 64, (20_000, 1))
    assert 8 * len(encode(uniform, [64])) / 20_000 == pytest.approx(6, abs=0.05)


def test_places_that_tell_about_one_another_are_cheaper_together():
    rng = np.random.default_rng(2)
    place = rng.integers(0, 8, (10_000, 1))
    twice = np.concatenate([place, place], 1)
    apart, sizes = join(twice, [8, 8], 8)
    assert sizes == [8, 8]
    together, size = join(twice, [8, 8], 64)
    assert size == [64]
    assert len(encode(together, size)) < 0.6 * len(encode(apart, sizes))


def test_grouping_keeps_within_the_limit_and_loses_no_place():
    assert grouped([64] * 4, 4096) == [[0, 1], [2, 3]]
    assert grouped([2] * 24, 4096) == [list(range(12)), list(range(12, 24))]
    assert grouped([8] * 8, 4096) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert grouped([5000, 2], 4096) == [[0], [1]]
    symbols, sizes = join(np.array([[3, 1, 4]]), [5, 2, 7], 10)
    assert sizes == [10, 7]
    assert symbols.tolist() == [[3 + 5, 4]]


def test_what_does_not_fit_is_refused():
    with pytest.raises(RangeCodingError, match="one column each"):
        encode(np.zeros((3, 2), dtype=int), [4])
    with pytest.raises(RangeCodingError, match="column by column"):
        encode(np.array([[4]]), [4])
    with pytest.raises(RangeCodingError, match="2 symbols"):
        encode(np.array([[0]]), [1])
    with pytest.raises(RangeCodingError, match="whole words"):
        decode(b"abc", 1, [4])
