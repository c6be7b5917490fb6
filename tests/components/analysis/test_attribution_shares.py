"""Shares of pairs against a count by hand and the cases whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from components.analysis.attribution import AttributionError
from components.analysis.attribution_shares import cumulative_shares, interaction_share, pairs_needed, tokens_touched

MATRICES = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.floats(-1, 3))


def by_hand(matrix: np.ndarray, share: float) -> float:
    """Add the largest pairs one by one, the last in part."""
    total, reached = matrix.sum(), 0.0
    for count, value in enumerate(sorted(matrix.ravel().tolist(), reverse=True)):
        if reached + value >= share * total:
            return (count + (share * total - reached) / value) / matrix.size
        reached += value
    return 1.0


@given(MATRICES, st.sampled_from([0.3, 0.8]))
def test_the_fraction_is_that_of_a_count_by_hand(matrix, share):
    if matrix.sum() < 0.1:
        return
    assert pairs_needed(matrix, share) == pytest.approx(by_hand(matrix, share))


@given(array_shapes(min_dims=2, max_dims=2, max_side=9), st.floats(0.05, 1))
def test_equal_attributions_need_exactly_the_share(shape, share):
    assert pairs_needed(np.full(shape, 0.37), share) == pytest.approx(share)


def test_negative_pairs_belong_to_the_total():
    matrix = np.array([[2.0, -0.5], [-0.5, 0.0]])
    assert cumulative_shares(matrix).tolist() == [2.0, 2.0, 1.5, 1.0]
    assert pairs_needed(matrix, 0.8) == pytest.approx(0.4 / 4)
    positive_only = np.maximum(matrix, 0)
    assert pairs_needed(positive_only, 0.8) == pytest.approx(0.8 / 4)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(AttributionError, match="positive total"):
        pairs_needed(np.array([[1.0, -1.0]]), 0.8)
    with pytest.raises(AttributionError, match="share is 0"):
        pairs_needed(np.ones((2, 2)), 0.0)


def test_tokens_touched_are_those_of_the_pairs_that_are_counted():
    matrix = np.zeros((4, 6))
    matrix[1, 2], matrix[1, 5], matrix[3, 2] = 5.0, 4.0, 1.0
    assert tokens_touched(matrix, 0.8) == pytest.approx((1 + 2) / 10)
    assert tokens_touched(matrix, 1.0) == pytest.approx((2 + 2) / 10)
    assert tokens_touched(np.ones((3, 3)), 1.0) == 1.0


@given(arrays(np.int64, 4, elements=st.integers(-9, 9)), arrays(np.int64, 3, elements=st.integers(-9, 9)))
def test_two_vectors_alone_leave_no_interaction(rows, columns):
    assert interaction_share(rows[:, None] / 7 + columns / 3) == pytest.approx(0, abs=1e-6)


def test_a_matrix_without_marginal_effects_is_all_interaction():
    matrix = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert interaction_share(matrix + 7) == pytest.approx(1)
    for row, column in itertools.product((0.5, 2.0), (0.1, 3.0)):
        outer = np.outer([1, row], [1, column])
        assert 0 < interaction_share(outer) < 1
    assert interaction_share(np.ones((3, 3))) == 0
