import numpy as np
import pytest

from components.tokenizers.text.row_cache import RowCache


def test_a_row_is_computed_once_while_there_is_room_and_the_oldest_goes_first():
    asked = []

    def compute(key: int) -> np.ndarray:
        asked.append(key)
        return np.full(10, key % 2 == 0)

    cache = RowCache(compute, memory=25)
    for key in (0, 1, 0, 2, 0, 1):
        assert cache[key].all() == (key % 2 == 0)
    # Rows of 10 bytes: two fit. 2 pushes out 1, which 0 was asked after.
    assert asked == [0, 1, 2, 1]


def test_rows_cannot_be_changed():
    row = RowCache(lambda key: np.ones(3, bool))[0]
    with pytest.raises(ValueError, match="read-only"):
        row[0] = False
