import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.analysis.heaps import GrowthError, VocabularyGrowth, growth_grid, heaps_fit, innovation_rate
from components.analysis.token_corpus import TokenCorpus

corpora = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=6), min_size=1, max_size=5)


@given(corpora, st.data())
def test_growth_in_any_order_is_counted_as_by_reading(documents, data):
    order = np.array(data.draw(st.lists(st.integers(0, len(documents) - 1), min_size=1, max_size=7)))
    growth = VocabularyGrowth(TokenCorpus.of(documents, 7).grams(1), len(documents))
    read = [token for document in order for token in documents[document]]
    at = np.arange(1, len(read) + 1)
    expected = [len(set(read[:t])) for t in at]
    assert growth.curve(order, at).tolist() == expected
    share = data.draw(st.floats(0.05, 1))
    assert growth.share_seen(order, share) == len(set(read[: int(share * len(read))])) / len(set(read))
    wanted = np.ceil(0.9 * len(set(read)))
    ends = np.cumsum([len(documents[document]) for document in order])
    assert growth.documents_until(order, 0.9) == 1 + next(
        place for place, end in enumerate(ends) if len(set(read[:end])) >= wanted
    )


def test_pairs_grow_inside_documents_only():
    corpus = TokenCorpus.of([[0, 1, 0, 1], [1, 1, 0]], 2)
    growth = VocabularyGrowth(corpus.grams(2), 2)
    assert (growth.tokens, growth.types) == (5, 3)
    assert growth.curve(np.array([1, 0]), np.arange(1, 6)).tolist() == [1, 2, 3, 3, 3]


def test_a_uniform_source_stops_growing_once_it_is_saturated():
    generator = np.random.default_rng(0)
    corpus = TokenCorpus.of(generator.integers(64, size=(1000, 50)), 64)
    growth = VocabularyGrowth(corpus.grams(1), 1000)
    grid = growth_grid(growth.tokens, first=0.05)
    seen = growth.curve(np.arange(1000), grid)
    assert abs(heaps_fit(grid, seen)[1]) < 1e-3
    assert innovation_rate(grid, seen).max() < 1e-3


def test_a_stream_that_never_repeats_has_exponent_and_innovation_rate_1():
    corpus = TokenCorpus.of(np.arange(5000).reshape(100, 50), 5000)
    growth = VocabularyGrowth(corpus.grams(1), 100)
    grid = growth_grid(growth.tokens)
    seen = growth.curve(np.random.default_rng(0).permutation(100), grid)
    assert heaps_fit(grid, seen) == pytest.approx((1, 1))
    assert innovation_rate(grid, seen) == pytest.approx(1)


def test_the_exponent_of_a_power_law_is_recovered():
    at = growth_grid(10**6)
    assert heaps_fit(at, 3.0 * at**0.6) == pytest.approx((3.0, 0.6))
    with pytest.raises(GrowthError, match="at least 2"):
        heaps_fit(at[:1], at[:1])


def test_a_zipf_source_grows_with_the_inverse_of_its_exponent():
    # Infinite Zipf sources have beta = 1 / s; the vocabulary here is far larger than the text.
    shares = np.arange(1, 10**6 + 1) ** -1.6
    tokens = np.random.default_rng(0).choice(10**6, size=200_000, p=shares / shares.sum())
    growth = VocabularyGrowth(TokenCorpus.of(tokens.reshape(2000, 100), 10**6).grams(1), 2000)
    grid = growth_grid(growth.tokens)
    assert heaps_fit(grid, growth.curve(np.arange(2000), grid))[1] == pytest.approx(1 / 1.6, abs=0.03)
