"""The median."""

from __future__ import annotations

import statistics


def estimate(numbers: list[float]) -> float:
    """Return the median."""
    return statistics.median(numbers)
