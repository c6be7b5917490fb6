"""Evenness against scipy's entropy, and its ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from components.analysis.normalized_entropy import EntropyError, normalized_entropy


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=60).filter(any))
def test_it_is_scipys_entropy_over_the_logarithm_and_between_0_and_1(counts):
    found = normalized_entropy(np.array(counts))
    assert found == pytest.approx(entropy(counts) / np.log(len(counts)), abs=1e-12)
    assert 0 <= found <= 1


def test_equal_counts_give_1_and_a_single_symbol_0():
    assert normalized_entropy(np.full(7, 3)) == pytest.approx(1, abs=1e-12)
    assert normalized_entropy(np.array([5, 0, 0])) == 0


@pytest.mark.parametrize("counts", [[3], [0, 0], [2, -1]])
def test_counts_without_meaning_are_refused(counts):
    with pytest.raises(EntropyError):
        normalized_entropy(np.array(counts))
