import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.analysis.token_corpus import TokenCorpus
from components.compression.entropy_coding import (
    CodingError,
    compressed_share,
    conditional_entropies,
    entropy,
    fixed_length,
    huffman_lengths,
    huffman_mean_length,
    huffman_saving,
    miller_madow,
)

counts_of = st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any)


@given(counts_of)
def test_a_huffman_code_is_a_prefix_code_within_a_bit_of_the_entropy(numbers):
    counts = np.array(numbers)
    lengths = huffman_lengths(counts)
    mean = (lengths * counts).sum() / counts.sum()
    assert entropy(counts) - 1e-9 <= mean < entropy(counts) + 1
    live = counts > 0
    assert (lengths[~live] == 0).all()
    if live.sum() > 1:
        # Kraft's sum is 1: the code is complete.
        assert (0.5 ** lengths[live].astype(float)).sum() == 1


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_no_prefix_code_is_shorter(numbers):
    counts = np.array(numbers)
    codes = itertools.product(range(1, len(numbers)), repeat=len(numbers))
    best = min((counts * code).sum() for code in codes if sum(0.5**length for length in code) <= 1)
    assert (huffman_lengths(counts) * counts).sum() == best


@given(st.lists(st.lists(st.integers(0, 20), min_size=6, max_size=6).filter(any), min_size=1, max_size=5))
def test_mean_lengths_of_many_distributions_are_those_of_their_codes(tables):
    counts = np.array(tables)
    expected = [(huffman_lengths(row) * row).sum() / row.sum() for row in counts]
    assert huffman_mean_length(counts) == pytest.approx(expected)


def test_dyadic_probabilities_are_coded_at_the_entropy_and_uniform_ones_save_nothing():
    counts = np.array([8, 4, 2, 1, 1])
    assert huffman_lengths(counts).tolist() == [1, 2, 3, 4, 4]
    assert huffman_mean_length(counts[None])[0] == pytest.approx(entropy(counts))
    assert huffman_saving(np.full(64, 7), 64) == 0
    assert huffman_saving(np.full(64, 7), 8, tokens=2) == 0


def test_entropies_of_known_distributions():
    assert entropy(np.array([[1, 1, 0, 0], [5, 0, 0, 0], [1, 1, 1, 1]])) == pytest.approx([1, 0, 2])
    assert fixed_length(512) == 9
    assert fixed_length(513) == 10


def test_the_correction_takes_most_of_the_bias_away():
    generator = np.random.default_rng(0)
    samples = generator.multinomial(400, np.full(100, 0.01), size=300)
    truth = np.log2(100)
    assert abs(miller_madow(samples).mean() - truth) < 0.2 * abs(entropy(samples).mean() - truth)


def test_conditional_entropies_are_those_of_a_markov_chain():
    generator = np.random.default_rng(0)
    stay = generator.random(200_000) < 0.9
    tokens = np.cumsum(~stay) % 2
    corpus = TokenCorpus.of([tokens], 2)
    first, second, third = conditional_entropies([corpus.grams(n).counts for n in (1, 2, 3)])
    rate = -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
    assert (first, second, third) == pytest.approx((1, rate, rate), abs=0.01)


def test_shuffling_inside_documents_changes_what_depends_on_order_and_nothing_else():
    generator = np.random.default_rng(0)
    tokens = np.cumsum(generator.random((300, 64)) < 0.3, axis=1) % 8
    corpus = TokenCorpus.of(list(tokens), 8)
    shuffled = corpus.shuffled(generator)
    one, other = (part.grams(1).counts for part in (corpus, shuffled))
    assert np.array_equal(one, other)
    assert entropy(one) == entropy(other)
    assert huffman_saving(one, 8) == huffman_saving(other, 8)
    before, after = (conditional_entropies([part.grams(n).counts for n in (1, 2)])[1] for part in (corpus, shuffled))
    assert after > before + 0.5
    sizes = [compressed_share(part.tokens, 8, name) for part in (corpus, shuffled) for name in ("gzip", "lzma")]
    assert sizes[2] > sizes[0]
    assert sizes[3] > sizes[1]


def test_compressors_leave_random_bits_alone_and_shrink_repetition():
    generator = np.random.default_rng(0)
    noise = generator.integers(256, size=20_000)
    assert compressed_share(noise, 256, "gzip") == pytest.approx(1, abs=0.01)
    assert compressed_share(np.zeros(20_000, int), 512, "lzma") < 0.01
    with pytest.raises(CodingError, match="gzip or lzma"):
        compressed_share(noise, 256, "bzip")
    for stream in (np.zeros(0, int), np.zeros(4, int)):
        with pytest.raises(CodingError):
            compressed_share(stream, 2, "gzip") if not len(stream) else huffman_lengths(stream)
