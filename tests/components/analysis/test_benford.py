import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.analysis.benford import BENFORD, benford, leading_digits
from components.errors import TesseraError


@given(st.lists(st.integers(1, 10**15), min_size=1))
def test_leading_digits_are_those_of_the_spelled_number(numbers):
    assert leading_digits(np.array(numbers)).tolist() == [int(str(number)[0]) for number in numbers]


def test_numbers_even_in_their_logarithm_follow_the_law_and_equal_digits_do_not():
    even = benford(np.geomspace(1000, 10**9, 60_001)[:-1].astype(int))
    assert even.mad < 1e-3
    assert even.chi_square < 2
    uniform = benford(np.arange(1, 10))
    assert uniform.mad == pytest.approx(np.abs(1 / 9 - BENFORD).mean())
    assert uniform.chi_square == pytest.approx(9 * ((1 / 9 - BENFORD) ** 2 / BENFORD).sum())
    assert BENFORD.sum() == pytest.approx(1)


def test_types_that_never_occur_have_no_digit():
    assert benford(np.array([0, 0, 30])).numbers == 1
    with pytest.raises(TesseraError, match="no positive number"):
        benford(np.zeros(3, int))
