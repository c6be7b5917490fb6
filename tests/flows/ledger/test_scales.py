"""Axes: values stay on the line, ticks are round, few and inside."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.ledger.scales import fit, tick_words

VALUE = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: float(f"{value:.6g}"))
POSITIVE = st.floats(1e-6, 1e6).map(lambda value: float(f"{value:.6g}"))


@given(st.lists(VALUE, min_size=1, max_size=8), st.integers(3, 8))
def test_a_linear_axis_holds_every_value_in_order_with_round_ticks_at_equal_steps(values, most):
    scale = fit(values, 10.0, 110.0, log=False)
    placed = [scale(value) for value in sorted(values)]
    assert placed == sorted(placed)
    assert all(10.0 <= x <= 110.0 for x in placed)
    ticks = scale.ticks(most)
    assert len(ticks) <= most
    assert all(scale.low - 1e-6 <= tick <= scale.high + 1e-6 for tick in ticks)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    # Ticks are rounded to what a float holds, and to their last written digit.
    rounding = 1e-9 * max(abs(scale.low), abs(scale.high))
    assert all(math.isclose(step, steps[0], rel_tol=1e-3, abs_tol=rounding) for step in steps)


@given(st.lists(POSITIVE, min_size=2, max_size=8), st.integers(3, 8))
def test_a_logarithmic_axis_turns_equal_factors_into_equal_steps(values, most):
    scale = fit(values, 0.0, 100.0, log=True)
    ticks = scale.ticks(most)
    assert 1 <= len(ticks) <= most
    assert all(scale.low <= tick <= scale.high for tick in ticks)
    low, high = min(values), max(values)
    assert scale(math.sqrt(low * high)) == pytest.approx((scale(low) + scale(high)) / 2, abs=1e-6)


def test_an_axis_runs_downwards_where_the_page_does():
    scale = fit([0.0, 1.0], 100.0, 0.0, margin=0.0)
    assert (scale(0.0), scale(1.0), scale(0.25)) == (100.0, 0.0, 75.0)


def test_what_lies_beyond_an_axis_is_kept_at_its_end():
    scale = fit([1.0, 100.0], 0.0, 10.0, log=True, margin=0.0)
    assert (scale(-5.0), scale(1e9)) == (0.0, 10.0)


def test_only_positive_values_over_more_than_a_factor_of_twenty_are_drawn_logarithmically():
    assert fit([1.0, 21.0], 0, 1).log
    assert not fit([1.0, 19.0], 0, 1).log
    assert not fit([0.0, 1000.0], 0, 1).log
    assert not fit([5.0], 0, 1).log


@pytest.mark.parametrize(
    "value, words",
    [(0.05, "0.05"), (0, "0"), (2000, "2,000"), (20_000, "20k"), (1.6e6, "1.6M"), (-3e6, "−3M"), (2e9, "2G")],
)
def test_ticks_are_spelled_in_few_characters(value, words):
    assert tick_words(value) == words
