import numpy as np
import pytest

from components.analysis.linearisation import reading_order
from components.errors import TesseraError


@pytest.mark.parametrize("order", ["raster", "column_major", "hilbert"])
@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_every_cell_is_read_once(order, rows):
    assert sorted(reading_order(order, rows).tolist()) == list(range(rows * rows))


@pytest.mark.parametrize("rows", [2, 4, 8, 16])
def test_the_hilbert_curve_steps_from_cell_to_neighbouring_cell(rows):
    y, x = np.divmod(reading_order("hilbert", rows), rows)
    assert (np.abs(np.diff(x)) + np.abs(np.diff(y)) == 1).all()
    # Every quarter of the grid is left once and for all.
    quarters = (2 * y // rows) * 2 + 2 * x // rows
    assert (np.diff(quarters) != 0).sum() == 3


def test_columns_are_read_from_top_to_bottom():
    assert reading_order("column_major", 3).tolist() == [0, 3, 6, 1, 4, 7, 2, 5, 8]


def test_curves_that_do_not_exist_are_refused():
    with pytest.raises(TesseraError, match="power of two"):
        reading_order("hilbert", 6)
    with pytest.raises(TesseraError, match="Did you mean"):
        reading_order("hilbrt", 4)
