import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.metrics.retrieval import RetrievalError, ndcg, ranks, reciprocal_rank, v_measure


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(1, 12))
def test_ranks_and_gains_are_those_of_sorting(seed, depth):
    generator = np.random.default_rng(seed)
    scores, relevant = generator.random((6, 15)), generator.integers(0, 15, 6)
    for query, (rank, gain, reciprocal) in enumerate(
        zip(ranks(scores, relevant), ndcg(scores, relevant, depth), reciprocal_rank(scores, relevant), strict=True)
    ):
        expected = 1 + sorted(scores[query], reverse=True).index(scores[query, relevant[query]])
        assert rank == expected
        assert gain == pytest.approx(1 / math.log2(1 + expected) if expected <= depth else 0)
        assert reciprocal == pytest.approx(1 / expected)


def test_ties_count_against_the_relevant_document():
    assert ranks(np.ones((1, 30)), np.array([0])).tolist() == [30]
    assert ndcg(np.ones((1, 30)), np.array([0])).tolist() == [0]


def test_ndcg_is_the_librarys():
    from sklearn.metrics import ndcg_score

    scores, relevant = np.random.default_rng(0).random((9, 20)), np.arange(9)
    truth = np.zeros((9, 20))
    truth[np.arange(9), relevant] = 1
    assert ndcg(scores, relevant, 10).mean() == pytest.approx(ndcg_score(truth, scores, k=10))


def test_v_measure_is_the_harmonic_mean_of_two_conditional_entropies():
    classes, clusters = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 1])
    table = np.array([[2, 0], [0, 2], [0, 2]]) / 6

    def entropy(probabilities):
        kept = probabilities[probabilities > 0]
        return -(kept * np.log(kept)).sum()

    joint, classwise, clusterwise = entropy(table.ravel()), entropy(table.sum(1)), entropy(table.sum(0))
    homogeneity, completeness = 1 - (joint - clusterwise) / classwise, 1 - (joint - classwise) / clusterwise
    assert v_measure(classes, clusters) == pytest.approx(2 / (1 / homogeneity + 1 / completeness))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(RetrievalError, match="expected"):
        ranks(np.ones((2, 3)), np.zeros(3, dtype=int))
    with pytest.raises(RetrievalError, match="0 to 2"):
        ranks(np.ones((1, 3)), np.array([3]))
    with pytest.raises(RetrievalError, match="equally many"):
        v_measure(np.zeros(2), np.zeros(3))
