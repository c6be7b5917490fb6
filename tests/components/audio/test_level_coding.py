"""Levels come back from their bits, which are fewer than the nominal ones where frames are alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.audio import level_coding
from components.compression import range_coding


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 200), st.integers(0, 99))
def test_levels_come_back(bits, frames, seed):
    levels = np.random.default_rng(seed).integers(2**bits, size=(frames, 3))
    stream = level_coding.encode(levels, 2**bits)
    assert np.array_equal(level_coding.decode(stream, frames, 3, 2**bits), levels)


def test_slow_changes_cost_far_less_than_nominal_and_than_levels_alone():
    draws = np.random.default_rng(0)
    levels = np.clip(8 + draws.integers(-1, 2, size=(2_000, 4)).cumsum(0) // 2, 0, 15)
    nominal = levels.size * 4
    coded = 8 * len(level_coding.encode(levels, 16))
    assert coded < 0.5 * nominal
    assert coded < 8 * len(range_coding.encode(levels, [16] * 4))


def test_a_level_outside_the_alphabet_is_refused():
    with pytest.raises(range_coding.RangeCodingError, match="levels 0 to 16"):
        level_coding.encode(np.array([[0], [16]]), 16)
