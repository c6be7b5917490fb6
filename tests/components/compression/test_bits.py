"""Bit packing: what goes in comes out, at exactly the promised length."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.compression.bits import BitstreamError, bits_per_token, pack, packed_bytes, unpack

QUICK = settings(deadline=None, derandomize=True, max_examples=60)


@QUICK
@given(st.integers(1, 16), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_powers_of_two_take_exactly_log2_bits_and_come_back(width, tokens, seed):
    size = 2**width
    indices = np.random.default_rng(seed).integers(size, size=tokens)
    stream = pack(indices, size)
    assert len(stream) == packed_bytes(tokens, size) == math.ceil(tokens * math.log2(size) / 8)
    assert np.array_equal(unpack(stream, tokens, size), indices)


@QUICK
@given(st.integers(2, 5000), st.integers(0, 50), st.integers(0, 2**32 - 1))
def test_any_codebook_size_comes_back(size, tokens, seed):
    indices = np.random.default_rng(seed).integers(size, size=tokens)
    assert np.array_equal(unpack(pack(indices, size), tokens, size), indices)
    assert bits_per_token(size) == math.ceil(math.log2(size))


@QUICK
@given(st.integers(1, 12), st.integers(1, 60), st.data())
def test_a_stream_cut_after_k_tokens_is_the_stream_of_the_first_k(width, tokens, data):
    size = 2**width
    kept = data.draw(st.integers(1, tokens))
    indices = np.random.default_rng(tokens).integers(size, size=tokens)
    cut = pack(indices, size)[: packed_bytes(kept, size)]
    assert np.array_equal(unpack(cut, kept, size), indices[:kept])


def test_bits_lie_as_written_by_hand():
    # 5 = 101, 2 = 010, 7 = 111: 10101011 1.......
    assert pack(np.array([5, 2, 7]), 8) == bytes([0b10101011, 0b10000000])


def test_the_paper_and_our_scaled_form_count_the_same_way():
    assert packed_bytes(256, 4096) == 384
    assert [64 * packed_bytes(k, 512) for k in (8, 16, 32)] == [576, 1152, 2304]


@pytest.mark.parametrize("indices", [[0, 8], [-1]])
def test_an_index_outside_the_codebook_is_refused(indices):
    with pytest.raises(BitstreamError, match=r"expected \[0, 8\)"):
        pack(np.array(indices), 8)


def test_a_stream_that_is_too_short_or_damaged_is_refused():
    with pytest.raises(BitstreamError, match="need 3"):
        unpack(b"ab", 2, 4096)
    with pytest.raises(BitstreamError, match="damaged"):
        unpack(b"\xff", 1, 5)
