import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score, root_mean_squared_error

from components.metrics import numeric


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("+4", 4),
        (" 5 ", 5),
        ("3.50", 3.5),
        ("007", 7),
        ("-0", 0),
        ("123456789012", 123456789012),
    ],
)
def test_numbers_are_read(text, value):
    assert numeric.parse_numbers([text]).tolist() == [value]


@pytest.mark.parametrize(
    "text", ["", "-", "1-2", "12 or 13", "3.", ".5", "1e5", "٣", "nan", "inf", "_1_2_", "--4", "1,000"]
)
def test_anything_else_is_no_number(text):
    found = numeric.parse_numbers(["7", text])
    assert found[0] == 7
    assert math.isnan(found[1])


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_whole_numbers_come_back(numbers):
    assert numeric.parse_numbers([str(number) for number in numbers]).tolist() == numbers


def test_no_answer_is_the_worst_answer_and_a_wild_one_no_worse():
    predicted = np.array([10.0, 13.0, 1e9, math.nan])
    truth = np.array([10.0, 10.0, 10.0, 10.0])
    assert numeric.normalised_error(predicted, truth, 4.0).tolist() == [0, 0.75, 2, 2]
    assert numeric.unparsable_share(predicted) == 0.25
    assert numeric.median_absolute_error(predicted, truth) == pytest.approx((3 + 1e9 - 10) / 2)
    assert numeric.median_absolute_error(np.array([math.nan] * 3), truth[:3]) == math.inf


def test_a_blind_answer_has_a_mean_normalised_error_of_one_where_nothing_is_cut_off():
    truth = np.random.default_rng(0).choice([-1.0, 1.0, 1.5, -1.5], 1000) + 7
    median = float(np.median(truth))
    blind = numeric.blind_error(truth, median)
    assert blind == pytest.approx(np.abs(truth - median).mean())
    errors = numeric.normalised_error(np.full(1000, median), truth, blind)
    assert errors.mean() == pytest.approx(1)
    with pytest.raises(numeric.NumericMetricError, match="nothing to predict"):
        numeric.blind_error(np.ones(3), 1.0)


def test_exact_match_is_on_characters():
    assert numeric.exact_match(["7", " 7", "07", "7.0", ""], ["7"] * 5).tolist() == [1, 1, 0, 0, 0]
    with pytest.raises(ValueError):
        numeric.exact_match(["1"], ["1", "2"])


def test_r2_and_rmse_are_those_of_scikit_learn():
    generator = np.random.default_rng(1)
    truth = generator.normal(size=200)
    predicted = truth + generator.normal(size=200) * 0.3
    assert numeric.r2(predicted, truth) == pytest.approx(r2_score(truth, predicted))
    holes = np.where(np.arange(200) % 5, predicted, math.nan)
    kept = ~np.isnan(holes)
    assert numeric.r2(holes, truth) == pytest.approx(r2_score(truth[kept], predicted[kept]))
    assert numeric.r2(np.full(3, math.nan), np.arange(3.0)) == 0
    rows = numeric.rmse_rows(predicted, truth)
    assert rows.mean() == pytest.approx(root_mean_squared_error(truth, predicted))
    with pytest.raises(numeric.NumericMetricError, match="would flatter"):
        numeric.rmse_rows(holes, truth)


def test_the_rows_of_an_rmse_have_the_variance_that_repeated_samples_show():
    generator = np.random.default_rng(2)
    samples = generator.normal(size=(2000, 100))
    nothing = np.zeros(100)
    values = [numeric.rmse_rows(sample, nothing).mean() for sample in samples]
    estimated = np.mean([numeric.rmse_rows(sample, nothing).var(ddof=1) / 100 for sample in samples])
    assert estimated == pytest.approx(np.var(values, ddof=1), rel=0.1)


def test_expected_digits_become_a_number():
    assert numeric.decimal_value(np.array([[4.0, 2.0], [0.5, 9.0]])).tolist() == [42, 14]
    assert numeric.decimal_value(np.array([1.0, 2.0, 3.0])) == 123
