"""The equal error rate against a closed form, a sweep of thresholds, and small cases by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from components.metrics.verification import VerificationError, all_pairs, equal_error_rate


def test_two_normal_laws_cross_where_the_closed_form_says():
    quantiles = torch.from_numpy(norm.ppf((torch.arange(4_000).double() + 0.5).numpy() / 4_000))
    for distance in (0.5, 2.0):
        scores = torch.cat([quantiles + distance, quantiles])
        same = torch.arange(8_000) < 4_000
        assert equal_error_rate(scores, same) == pytest.approx(norm.cdf(-distance / 2), abs=1e-3)


def test_small_cases_by_hand():
    same = torch.tensor([True, True, False, False])
    assert equal_error_rate(torch.tensor([4.0, 3.0, 2.0, 1.0]), same) == 0
    assert equal_error_rate(torch.tensor([1.0, 2.0, 3.0, 4.0]), same) == 1
    assert equal_error_rate(torch.tensor([4.0, 2.0, 3.0, 1.0]), same) == 0.5
    # All scores alike: accept all or none, half-way between the two.
    assert equal_error_rate(torch.ones(4), same) == 0.5


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=30))
def test_the_rate_lies_between_the_errors_of_the_two_thresholds_where_their_order_turns(pairs):
    scores = torch.tensor([float(score) for score, _ in pairs])
    same = torch.tensor([kind for _, kind in pairs])
    if bool(same.all()) or not bool(same.any()):
        with pytest.raises(VerificationError):
            equal_error_rate(scores, same)
        return
    rates = [
        (float((scores[same] < level).float().mean()), float((scores[~same] >= level).float().mean()))
        for level in [-1.0, *(value + 0.5 for value in range(10))]
    ]
    found = equal_error_rate(scores, same)
    before = max((miss for miss, accept in rates if miss <= accept), default=0.0)
    after = min((miss for miss, accept in rates if miss >= accept), default=1.0)
    assert before - 1e-6 <= found <= after + 1e-6


def test_every_pair_stands_once():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    cosines, same = all_pairs(vectors, torch.tensor([0, 1, 0]))
    assert cosines.tolist() == pytest.approx([0, 0.5**0.5, 0.5**0.5])
    assert same.tolist() == [False, True, False]
