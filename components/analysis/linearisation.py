"""Orders in which the cells of a square grid are read as a sequence.

Letters: `R` cells along a side, `P = R^2` cells.

Source: Hilbert 1891 (the curve); Warren 2012, "Hacker's Delight", chapter 16 (coordinates from the distance along it).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from components.errors import TesseraError, did_you_mean

Order = Literal["raster", "column_major", "hilbert"]


def reading_order(order: Order, rows: int) -> np.ndarray:
    """Return the cells of a grid in reading order, int64 (P,), cells being numbered row by row.

    Args:
        order: "raster" (row by row), "column_major" (column by column) or "hilbert", on which neighbours in the
            sequence are neighbours in the picture.
        rows: R; a power of two for "hilbert".

    Raises:
        TesseraError: There is no such order, or it does not exist for this grid.
    """
    cells = np.arange(rows * rows)
    if order == "raster":
        return cells
    if order == "column_major":
        return cells.reshape(rows, rows).T.ravel()
    if order != "hilbert":
        near = did_you_mean(order, get_args(Order))
        raise TesseraError(f"order {order!r} does not exist.{near} Expected one of {', '.join(get_args(Order))}.")
    if rows & (rows - 1):
        raise TesseraError(f"a Hilbert curve through {rows} x {rows} cells does not exist; expected a power of two.")
    x, y, rest, side = np.zeros_like(cells), np.zeros_like(cells), cells.copy(), 1
    while side < rows:
        right, up = rest // 2 & 1, (rest ^ (rest // 2)) & 1
        flip = (up == 0) & (right == 1)
        x, y = np.where(flip, side - 1 - x, x), np.where(flip, side - 1 - y, y)
        x, y = np.where(up == 0, y, x), np.where(up == 0, x, y)
        x, y, rest, side = x + side * right, y + side * up, rest // 4, 2 * side
    return y * rows + x
