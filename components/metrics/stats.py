"""Statistics that metrics need on their way into a table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from components.errors import TesseraError


class StatisticsError(TesseraError):
    """A statistic is not defined for what it was given."""


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two series; 0 when one of them is constant.

    A constant series has no ranks to agree with, so it is no evidence of an order in either direction.
    """
    ranks = [rankdata(np.asarray(series, dtype=np.float64)) for series in (first, second)]
    if len(ranks[0]) != len(ranks[1]) or len(ranks[0]) < 2:
        raise StatisticsError(f"spearman of {len(ranks[0])} and {len(ranks[1])} values; expected equally many.")
    centred = [rank - rank.mean() for rank in ranks]
    spread = np.sqrt(np.square(centred[0]).sum() * np.square(centred[1]).sum())
    return float(centred[0] @ centred[1] / spread) if spread > 0 else 0.0


def jackknife_influence(value: float, without: np.ndarray) -> np.ndarray:
    """Turn leave-one-out values of a statistic into one row per item whose mean is the statistic.

        row_i = value + (G - 1) (mean_j without_j - without_i)

    The variance of the rows divided by G is the jackknife variance of the statistic, and rows of two arms on the same
    items pair, as per-item values of an ordinary mean do. (Rows are pseudo-values, centred so that the plain, not the
    bias-corrected, statistic is their mean.)

    Args:
        value: The statistic of all items.
        without: (G,) the statistic without item i.

    Returns:
        (G,).

    Source: Efron and Tibshirani 1993, chapter 11.
    """
    without = np.asarray(without, dtype=np.float64)
    if len(without) < 2:
        raise StatisticsError(f"a jackknife over {len(without)} items; expected at least 2.")
    return value + (len(without) - 1) * (without.mean() - without)


def jackknife_variance(value: float, without: np.ndarray) -> float:
    """Return the jackknife variance (G - 1)/G sum_i (without_i - mean)^2 of a statistic."""
    rows = jackknife_influence(value, without)
    return float(rows.var(ddof=1) / len(rows))


def grouped_jackknife(statistic: Callable[[np.ndarray], float], items: int, groups: int) -> tuple[float, float]:
    """Return a statistic and its jackknife variance over blocks of items.

    Args:
        statistic: Takes the row numbers it may use, int64 (M,).
        items: Number of rows.
        groups: Number of blocks of consecutive rows to leave out in turn.
    """
    rows = np.arange(items)
    block = rows * groups // items
    value = statistic(rows)
    return value, jackknife_variance(value, np.array([statistic(rows[block != index]) for index in range(groups)]))
