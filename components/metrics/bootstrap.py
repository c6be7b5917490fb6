"""A bootstrap interval of a mean over test items.

Letters: `I` items, `R` resamples.

Source: Efron and Tibshirani 1993, chapter 13 (percentile interval).
"""

from __future__ import annotations

import numpy as np

from components.errors import TesseraError

_CHUNK = 1 << 22  # drawn indices that are held at once


class BootstrapError(TesseraError):
    """There is too little to resample."""


def mean_interval(values: np.ndarray, resamples: int, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of the mean of values (I,) under resampling of items with replacement.

    Of paired arms, give the differences item by item.

    Raises:
        BootstrapError: There are fewer than two items.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        raise BootstrapError(f"a bootstrap over {len(values)} items; expected at least 2.")
    generator = np.random.default_rng(seed)
    means, at_once = [], max(1, _CHUNK // len(values))
    for first in range(0, resamples, at_once):
        rows = generator.integers(len(values), size=(min(at_once, resamples - first), len(values)))
        means.append(values[rows].mean(1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return float(low), float(high)
