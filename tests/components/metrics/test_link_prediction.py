"""Filtered ranks against counting by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.metrics.link_prediction import filtered_ranks, hits, mean_reciprocal_rank


def by_hand(scores, target, known):
    own, better, equal = scores[target], 0, 0
    for node, score in enumerate(scores):
        if node == target or known[node]:
            continue
        better += score > own
        equal += score == own
    return 1 + better + equal / 2


@settings(deadline=None)
@given(st.data(), st.integers(1, 7), st.integers(1, 4))
def test_ranks_count_what_is_better_and_half_of_what_is_equal_among_wrong_answers(data, nodes, queries):
    # Few different scores, so that ties are common.
    scores = data.draw(
        st.lists(st.lists(st.integers(0, 3), min_size=nodes, max_size=nodes), min_size=queries, max_size=queries)
    )
    known = data.draw(
        st.lists(st.lists(st.booleans(), min_size=nodes, max_size=nodes), min_size=queries, max_size=queries)
    )
    targets = data.draw(st.lists(st.integers(0, nodes - 1), min_size=queries, max_size=queries))
    ranks = filtered_ranks(torch.tensor(scores, dtype=torch.float32), torch.tensor(targets), torch.tensor(known))
    expected = [by_hand(*query) for query in zip(scores, targets, known, strict=True)]
    assert ranks.tolist() == expected


def test_equal_scores_give_the_rank_of_a_guess():
    ranks = filtered_ranks(torch.zeros(1, 9), torch.tensor([4]), torch.zeros(1, 9, dtype=torch.bool))
    assert ranks.tolist() == [5.0]


def test_the_right_answer_may_be_marked_as_known():
    known = torch.tensor([[True, True, False]])
    assert filtered_ranks(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([1]), known).tolist() == [2.0]
    assert known.tolist() == [[True, True, False]]


def test_summaries_are_means_over_queries():
    ranks = torch.tensor([1.0, 2.0, 4.0, 20.0], dtype=torch.float64)
    assert mean_reciprocal_rank(ranks) == pytest.approx((1 + 0.5 + 0.25 + 0.05) / 4)
    assert hits(ranks, 4) == pytest.approx(0.75)
