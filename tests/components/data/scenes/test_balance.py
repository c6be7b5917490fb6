"""Balanced choices: allowed ones only, and as even as a maximum flow could make them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.scenes.balance import balanced


def bits(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 1 << 64, shape, np.uint64)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.integers(1, 9), st.floats(0.05, 1), st.integers(0, 1000))
def test_choices_are_allowed_and_missing_only_where_nothing_is(count, options, share, seed):
    allowed = np.random.default_rng(seed).random((count, options)) < share
    chosen = balanced(allowed, bits(allowed.shape, seed))
    some = allowed.any(1)
    assert (chosen[~some] == -1).all()
    assert allowed[some, chosen[some]].all()


def test_without_restrictions_all_options_are_used_equally():
    counts = np.bincount(balanced(np.ones((1000, 7), bool), bits((1000, 7))))
    assert counts.max() - counts.min() <= 1


def test_rare_options_are_saved_for_those_who_have_no_other_and_used_whenever_they_are_scarce():
    # Option 2 is allowed by 50 items only; of the others half allow both 0 and 1, a quarter one of them each.
    generator = np.random.default_rng(0)
    allowed = np.zeros((1000, 3), bool)
    kind = generator.integers(0, 4, 1000)
    allowed[kind != 0, 0] = allowed[kind != 1, 1] = True
    allowed[:50, 2] = True
    counts = np.bincount(balanced(allowed, bits(allowed.shape)), minlength=3)
    assert counts[2] == 50
    assert abs(counts[0] - counts[1]) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_most_used_option_is_as_rare_as_the_best_assignment_allows(seed):
    # With nested options (item i allows 0 .. i's number) the least possible maximum has a closed form: options 0 .. j
    # must take all items that allow no other.
    generator = np.random.default_rng(seed)
    widest = generator.integers(1, 7, 600)
    allowed = np.arange(6) < widest[:, None]
    counts = np.bincount(balanced(allowed, bits(allowed.shape, seed)), minlength=6)
    best = max(-(-int((widest <= width).sum()) // width) for width in range(1, 7))
    assert counts.max() <= best + 3


def test_what_was_used_before_is_evened_out():
    used = np.array([300, 0, 100])
    counts = used + np.bincount(balanced(np.ones((500, 3), bool), bits((500, 3)), used), minlength=3)
    assert counts.max() - counts.min() <= 1


def test_ties_are_broken_at_random_and_not_in_favour_of_a_row():
    chosen = np.stack([balanced(np.ones((3, 3), bool), bits((3, 3), seed)) for seed in range(300)])
    for row in range(3):
        assert (np.bincount(chosen[:, row], minlength=3) > 60).all()
